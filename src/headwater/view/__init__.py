"""What people see: the query API, the live feed, the metrics."""
