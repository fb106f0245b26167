"""Jobs: queues, processes, logs and return codes. Knows no client and no wire."""
