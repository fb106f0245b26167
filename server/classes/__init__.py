"""One module per class of requests. Each says which role an action needs, and answers it."""
