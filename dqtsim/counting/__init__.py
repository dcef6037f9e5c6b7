"""COUNT: operations, moved bits, cycles and energy of a plan, from shapes and by watching the law execute."""
