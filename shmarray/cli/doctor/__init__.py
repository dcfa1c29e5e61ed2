"""`shmarray doctor`: is everything here as shared arrays and their kernels need it, and what to do if not?"""
