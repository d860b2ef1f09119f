"""What quotes of Intel TDX and SGX share: layout, PCK, TCB info, QE identity."""
