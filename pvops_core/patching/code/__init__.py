"""Machine code as plain data: decoded, filled up, moved, and proven about. Knows no table and no kernel."""
