"""Machine-code kernels of batch-one decoding on the CPU: each reads only the weights it is told to."""
