def tables(m): return ""
