"""The processors, memory and GPUs of this machine: what is there, what is free, and what a program uses of it."""
