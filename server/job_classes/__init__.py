"""Classes whose actions queue jobs: what each makes of a request, and of what its jobs say."""
