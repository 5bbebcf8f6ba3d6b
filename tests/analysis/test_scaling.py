"""The model of many replicas against a simulation of it, and the file that holds what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from analysis.scaling import Block, Parts, Scaling, draw
from bench.errors import UsageError

DRAW = np.random.default_rng(0)


def block(replicas: int, link_s: float, index: int, message_s: float = 0.001, rest_s: float = 0.002) -> Block:
    """Five steps as the model has them, each replica's time drawn by itself."""
    busy = [sorted(([0.001, float(t)] for t in DRAW.gamma(50, 0.0002, replicas)), key=sum, reverse=True) for _ in range(5)]
    walls = [sum(step[0]) + replicas * message_s + rest_s + link_s for step in busy]
    return Block(replicas, link_s, index, walls, busy, replicas * message_s)


def test_the_slowest_of_many_is_the_simulated_one() -> None:
    parts = Parts(tuple(DRAW.gamma(50, 0.0002, 400)), 0.0, 0.0, 0.0)
    for replicas in (1, 2, 16, 1024):
        simulated = DRAW.choice(parts.items, size=(4000, replicas)).max(axis=1).mean()
        assert parts.slowest(replicas) == pytest.approx(simulated, rel=0.01)


def test_parts_measured_at_one_replica_predict_more(tmp_path: Path) -> None:
    points = [(1, 0.0), (2, 0.0), (4, 0.0), (1, 0.05), (4, 0.05)]
    blocks = [block(*point, index) for index in range(60) for point in points]
    facts = {"kind": "scale", "spec": {"workload": "w", "executor": "e", "model": "m"}, "environment": {"device": "cpu"}}
    path = tmp_path / "scale.json"
    path.write_text(json.dumps(facts | {"blocks": [asdict(one) for one in blocks]}))
    found = Scaling.read(path)
    assert found.parts.message_s == pytest.approx(0.001) and found.parts.rest_s == pytest.approx(0.002)
    for point in found.points():
        low, high = point.efficiency.low, point.efficiency.high
        assert low is not None and high is not None and low - 0.01 <= point.predicted <= high + 0.01, point
    single = found.parts.step_s(1, 0.0)
    assert found.parts.efficiency(1, 0.05) == pytest.approx(single / (single + 0.05))
    draw(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 10_000


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text in ("{}", "[]", "not JSON", '{"kind": "scale", "blocks": [{"replicas": 1}]}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="no measurement of replicas"):
            Scaling.read(path)
