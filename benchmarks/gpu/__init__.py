"""One unattended check of everything on a CUDA machine: `python -m benchmarks.gpu`."""
