"""VECTOR: the same bits as the other kernels, in LLVM IR written by hand, on vectors and in the layout NHWC.

An *operation* is a native function `void name(i64 words, i64 chunk)`. `words` is the address of its record, the
descriptor of the operation: one 64-bit field for each name of its `Record`. The first two are the function's own
address and the number of its chunks. Chunks 0 .. chunks - 1 together do the whole work, in any order and on any
threads. A *program* is an array of records of one size, run from the first to the last. Nothing here depends on graphs
or files. Lowering, which fills the records, proves that their values are valid.

Tensors of rank 4 are codes uint8 [H][W][stride], where stride is the number of channels rounded up to 16 (to 4 where a
picture has at most 4 channels); bytes of the channels that do not exist may hold anything. All others are contiguous.
"""
