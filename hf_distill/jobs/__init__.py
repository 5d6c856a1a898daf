"""The jobs of the package: one public function each, from argument dataclasses to a JSON-able result."""
