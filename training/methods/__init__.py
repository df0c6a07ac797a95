"""Methods that give each row an anomaly score."""
