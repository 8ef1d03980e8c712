"""Batch-one decoding that reads only the weights a policy chose, and how long it takes."""
