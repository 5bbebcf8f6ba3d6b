"""Runs that outlive their process: events, journal, snapshots, result store."""
