"""Guest-virtual memory as a processor sees it: the page walk, and what an access touches."""
