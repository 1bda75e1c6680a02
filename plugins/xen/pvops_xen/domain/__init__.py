"""The domain builder for real images: what libxenguest does between an ELF file and a guest that can run."""
