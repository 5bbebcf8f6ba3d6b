"""Which bucket work belongs to, by mark, phase and name. Times in microseconds."""

import pytest
from traces import STEP, call, gpu, mark, op, recorder, us

from bench import api
from bench.recorders.buckets import Phases, classify
from bench.recorders.launches import Launches
from bench.recorders.memory import temporaries, unexplained
from bench.recorders.time_breakdown import TimeBreakdown
from bench.recorders.timeline import exclusive, read_trace

KERNELS = [
    ("nvjet_sm90_hsh_128x256_64x4_2x1_v_bz_coopA_bias_TNN", "gemm"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm_relu_f16_64x64_32x6_tn_align8>(...)", "gemm"),
    ("void cublasLt::splitKreduce_kernel<32, 16, int, __half, __half, float, __half>(...)", "gemm"),
    ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __half, float>(...)", "gemm"),
    ("triton_tem_fused_addmm_relu_3", "gemm"),
    ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::Main<2>>>>(...)", "attention"),
    ("void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>>>>(...)", "attention"),
    ("flash::prepare_varlen_num_blocks_kernel(int, int, int, int const*, bool)", "attention"),
    ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 256, 4>>(...)", "attention"),
    ("fmha_cutlassF_f16_aligned_64x64_rf_sm80(...)", "attention"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "attention"),
    ("void flashinfer::BatchPrefillWithRaggedKVCacheKernel<flashinfer::KernelTraits>(...)", "attention"),
    ("kernel_unified_attention_2d", "attention"),
    ("_lora_shrink_kernel", "lora_shrink_expand"),
    ("_lora_expand_kernel", "lora_shrink_expand"),
    ("void vllm::reshape_and_cache_flash_kernel<unsigned short, unsigned short, 0>(...)", "kv_write"),
    ("_compute_slot_mapping_kernel", "kv_write"),
    ("void vllm::rms_norm_kernel<c10::Half, 8, 2>(...)", "norm_activation"),
    ("std::enable_if<true>::type vllm::fused_add_rms_norm_kernel<c10::Half, 8>(...)", "norm_activation"),
    ("void vllm::rotary_embedding_kernel<c10::Half, true>(...)", "norm_activation"),
    ("void vllm::act_and_mul_kernel<c10::Half, &vllm::silu_kernel<c10::Half>, true>(...)", "norm_activation"),
    ("triton_red_fused_add_addmm_native_layer_norm_2", "norm_activation"),
    ("triton_poi_fused_lora_shrink_relu_unified_attention_with_output_zeros_1", "norm_activation"),
    ("triton_per_fused_embedding_native_layer_norm_0", "norm_activation"),
    ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<c10::Half>>(...)", "norm_activation"),
    ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<TensorListMetadata<2>>(...)", "norm_activation"),
    ("void cub::CUB_300001_SM_900::DeviceScanKernel<cub::Policy>(...)", "norm_activation"),
    ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(...)>(...)", "memcpy"),
    ("void at::native::(anonymous namespace)::CatArrayBatchedCopy_contig<unsigned short, 2>(...)", "memcpy"),
    ("void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::Half, long>(...)", "memcpy"),
    ("void at::native::vectorized_gather_kernel<16, long>(...)", "memcpy"),
    ("void (anonymous namespace)::softmax_warp_forward<float, float, float, 5, false, false>(...)", "attention"),
    ("_fold", "weight_rewrite"),
    ("_topk_topp_kernel", "sampling"),
]


@pytest.mark.parametrize(("name", "bucket"), KERNELS)
def test_kernels_of_a_graph_are_known_by_their_own_name(name, bucket):
    graph = [mark("zo.step 0", 0, 100), mark("zo.score", 1, 90), call("cudaGraphLaunch", 2, 1), gpu(name, 10, 40, 1)]
    assert recorder(TimeBreakdown, graph).collect()["buckets"] == {bucket: us(40)}


def test_the_fold_kernel_rewrites_weights_whatever_the_phase():
    """An executor with adapters: its updates write states, its folds weights."""
    for ranges in ([], ["zo.fold"]):
        marks = [mark("zo.step 0", 0, 100), *(mark(name, 1, 50) for name in ranges)]
        [found] = read_trace({"traceEvents": [*marks, call("cuLaunchKernel", 2, 1), gpu("_fold", 10, 40, 1)]}).device
        assert classify(found, Phases("state_write", "state_write")) == "weight_rewrite"


def test_counts_are_per_step():
    later = [event | {"ts": event["ts"] + 200} for event in STEP]
    later[0] = mark("zo.step 1", 200, 100)
    later = [e | {"args": {"correlation": e["args"]["correlation"] + 50}} if e["args"] else e for e in later]
    assert recorder(Launches, STEP + later).collect() == recorder(Launches, STEP).collect() | {"steps": 2}


def test_without_markers_phases_are_unavailable_and_buckets_are_not():
    whole = [mark("zo.step 0", 0, 100), call("cudaGraphLaunch", 1, 1), gpu("nvjet_hsh_128x128", 10, 40, 1)]
    found = recorder(TimeBreakdown, whole).collect()
    assert found["phases"] is None and "graph" in found["phases_unavailable"]
    assert found["buckets"] == {"gemm": us(40)}


def test_unmatched_names_are_named():
    strange = [mark("zo.step 0", 0, 100), call("cudaLaunchKernel", 1, 1), gpu("strange_kernel", 10, 30, 1)]
    found = recorder(TimeBreakdown, strange).collect()
    assert found["buckets"] == {"other": us(30)}
    assert found["largest"]["other"] == [["strange_kernel", us(30)]]


def test_an_executors_mark_decides_before_everything_but_copies_from_and_to_the_host():
    events = [mark("zo.step 0", 0, 100), mark("zo.score", 0, 90), mark("zo.op.head_logits", 10, 30)]
    events += [call("cudaLaunchKernel", 11, 1), call("cudaMemcpyAsync", 12, 2), gpu("gemm", 20, 10, 1)]
    events += [gpu("Memcpy HtoD (Pinned -> Device)", 40, 10, 2, cat="gpu_memcpy")]
    assert recorder(TimeBreakdown, events).collect()["buckets"] == {"head_logits": us(10), "memcpy": us(10)}


def test_operators_keep_their_own_time_and_gaps_are_idle():
    nested = [mark("zo.step 0", 0, 100), op("aten::linear", 10, 40), op("aten::addmm", 20, 25), op("aten::relu", 60, 10)]
    found = recorder(TimeBreakdown, nested, device="cpu").collect()
    assert found["buckets"] == {"gemm": us(40), "norm_activation": us(10)}
    assert dict(found["largest"]["gemm"]) == {"aten::addmm": us(25), "aten::linear": us(15)}
    assert found["idle_s"] == us(50)


@pytest.mark.parametrize(
    ("names", "phase", "bucket"),
    [
        (["aten::add"], "score", "norm_activation"),
        (["aten::add"], "update", "weight_rewrite"),
        (["aten::randn", "aten::normal_"], "perturb", "direction_generation"),
        (["aten::rand"], "fold", "weight_rewrite"),  # the draws of stochastic rounding
        (["aten::matmul", "aten::bmm"], "score", "attention"),
        (["aten::layer_norm", "aten::native_layer_norm"], "score", "norm_activation"),
        (["aten::expand"], "score", "norm_activation"),
        (["aten::to", "aten::_to_copy", "aten::copy_"], "score", "memcpy"),
        (["aten::log_softmax", "aten::_log_softmax", "softmax_warp_forward<float>"], "score", "head_logits"),
        (["aten::addmm", "void gemv2T_kernel_val<int>"], "score", "gemm"),
        (["vllm::unified_attention_with_output", "_C_cache_ops::reshape_and_cache_flash"], "score", "kv_write"),
        (["vllm::lora_shrink", "_lora_shrink_kernel"], "score", "lora_shrink_expand"),
        (["aten::sort", "at_cuda_detail::cub::DeviceRadixSortSingleTileKernel<int>"], "score", "lora_shrink_expand"),
        (["_C::get_scheduler_metadata"], "score", "attention"),
        (["aten::_foreach_copy_", "multi_tensor_apply_kernel<Copy>"], "score", "norm_activation"),
        (["ncclDevKernel_AllReduce_Sum_f16_RING_LL"], "score", "communication"),
        (["aten::broadcast_to"], "score", "norm_activation"),
        (["my_module::my_op"], "score", "other"),
    ],
)
def test_rules(names, phase, bucket):
    start, events = 10.0, [mark("zo.step 0", 0, 100), mark(f"zo.{phase}", 1, 90)]
    for depth, name in enumerate(names):
        events.append(op(name, start + depth, 50 - 2 * depth))
    innermost = read_trace({"traceEvents": events}).operators[-1]
    assert innermost.names == tuple(names)
    assert classify(innermost, Phases()) == bucket


def test_exclusive_time_is_split_between_what_overlaps_and_clipped_to_the_windows():
    work = [((0, 30), "a"), ((10, 20), "b"), ((10, 20), "b"), ((50, 70), "a")]
    shares, idle = exclusive(work, [(5, 40), (60, 65)])
    assert shares == {"a": pytest.approx(5 + 10 / 3 + 10 + 5), "b": pytest.approx(20 / 3)}
    assert idle == 10


def test_temporaries_are_what_a_step_holds_beyond_its_start():
    def memory(ts, total):
        return {"name": "[memory]", "ts": ts, "args": {"Device Type": 0, "Total Allocated": total}}

    events = [mark("zo.step 0", 0, 100), mark("zo.step 1", 200, 100)]
    events += [memory(-5, 100), memory(10, 150), memory(20, 90), memory(150, 900), memory(210, 940), memory(220, 100)]
    assert temporaries(read_trace({"traceEvents": events})) == 50


def test_what_the_allocator_held_besides_known_tensors_and_other_executors():
    known = {"weights": 100, "kv_pool": 50}
    assert unexplained(1000, known, beside=0) == 850
    assert unexplained(1000, known, beside=600) == 250
    with pytest.raises(RuntimeError, match="50 bytes more"):
        unexplained(1000, known, beside=900)


def test_a_mark_that_is_no_bucket_is_an_error():
    with pytest.raises(ValueError, match="'gem' is no bucket; choose one of gemm, attention"):
        api.mark("gem")


def plain_products(start, number, phase="zo.score"):
    """A pass launched kernel by kernel: a layer's product, an adapter's two and its sum, as unfused products are."""
    names = ["nvjet_a", "nvjet_b", "nvjet_c", "vectorized_add", "flash_fwd_kernel"]
    marked = [mark(phase, start + 1, 80), mark("zo.op.lora_shrink_expand", start + 20, 40)]
    calls = [call("cudaLaunchKernel", start + 10 + 15 * i, number + i) for i in range(5)]
    return marked + calls + [gpu(name, start + 12 + 15 * i, 10, number + i) for i, name in enumerate(names)]


def test_kernels_of_a_recorded_pass_are_told_by_the_same_kernels_launched_one_by_one():
    """By names alone the adapter's products would be products of the layer, and its sum a sum."""
    warm = [mark("zo.warmup", 0, 100), *plain_products(0, 100)]
    graph = [mark("zo.step 0", 200, 100), mark("zo.score", 201, 90), call("cudaGraphLaunch", 205, 1)]
    names = ["nvjet_a", "nvjet_b", "nvjet_c", "vectorized_add", "flash_fwd_kernel", "nvjet_last", "strange_kernel"]
    graph += [gpu(name, 210 + 10 * i, 10, 1) for i, name in enumerate(names)]
    found = recorder(TimeBreakdown, warm + graph).collect()
    assert found["buckets"] == {"gemm": us(20), "attention": us(10), "lora_shrink_expand": us(30), "other": us(10)}
    assert found["recorded"] == {"order": us(50), "name": us(10), "unknown": us(10)}
    assert found["phases"].keys() == {"score"} and found["steps"] == 1
    alone = recorder(TimeBreakdown, graph).collect()
    assert alone["buckets"] == {"gemm": us(40), "norm_activation": us(10), "attention": us(10), "other": us(10)}
    assert alone["recorded"] == {"order": 0, "name": us(60), "unknown": us(10)}
    assert recorder(TimeBreakdown, STEP[:-4]).collect()["recorded"] is None


def test_a_kernel_alone_is_placed_nowhere():
    """Two kernels in a row of equal names may be any: only longer runs are told by their order."""
    warm = [mark("zo.warmup", 0, 100), *plain_products(0, 100)]
    graph = [mark("zo.step 0", 200, 100), call("cudaGraphLaunch", 205, 1), gpu("nvjet_b", 210, 10, 1), gpu("nvjet_c", 220, 10, 1)]
    assert recorder(TimeBreakdown, warm + graph).collect()["recorded"] == {"order": 0, "name": us(20), "unknown": 0}
