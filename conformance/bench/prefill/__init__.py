"""What chunked prefill trades: chunk size × hot window × tier, against memory, time and bytes moved."""
