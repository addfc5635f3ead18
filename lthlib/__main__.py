"""`python -m lthlib`, for those who start modules: `torchrun --nproc-per-node 2 -m lthlib run`."""

from lthlib.cli import main

if __name__ == "__main__":
    main()
