"""`shmarray demo`: the whole of the library on real terrain, each step checked and timed beside its peers."""
