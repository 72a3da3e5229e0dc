"""stub"""
def verdict_bundle(v): return {"text/plain": str(v)}
