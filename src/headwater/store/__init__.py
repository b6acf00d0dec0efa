"""Rows into ClickHouse, exactly once; questions out of it."""
