"""The memory of a PV domain: whose each frame is and as what, its page tables, and the hypercalls that change them."""
