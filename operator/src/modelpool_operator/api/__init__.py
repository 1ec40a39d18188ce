"""The resources: names, pydantic models, and the CRDs generated from them."""
