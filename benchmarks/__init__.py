"""What pvops costs, each figure beside the floor or the peer that was measured in the same run.

``python -m benchmarks`` prints the table; ``python -m benchmarks NAME …`` only those rows whose name contains a NAME.
Times are the best of several repeats: noise only ever adds to them.
"""
