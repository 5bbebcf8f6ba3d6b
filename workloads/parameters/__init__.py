"""The state of training: accumulated updates, folds, dense copies, snapshots, checksums."""
