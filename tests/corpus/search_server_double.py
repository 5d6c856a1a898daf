"""A search server in a thread: the endpoints of Elasticsearch and OpenSearch that the engine uses, over real HTTP.

It keeps rows in several shards and scores as Lucene does: lengths rounded to a byte, rows without terms not counted,
float32 sums, and, as newer servers do, without the factor k1 + 1 where it is told so. A search without
`dfs_query_then_fetch` is scored by the statistics of each shard.
"""

import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


def stored_length(length):
    """Lucene's one-byte length: exact up to 40, then the four highest bits of what is above 24."""
    if length <= 40:
        return length
    rest = length - 24
    shift = max(0, rest.bit_length() - 4)
    return 24 + ((rest >> shift) << shift)


class Shard:
    """Rows by number, as lists of terms."""

    def __init__(self):
        self.rows = {}

    def statistics(self):
        filled = [terms for terms in self.rows.values() if terms]
        frequencies = Counter(term for terms in filled for term in set(terms))
        return len(filled), sum(map(len, filled)), frequencies


class SearchServerDouble:
    """`url` is its address; what it was asked is in `calls`.

    Args:
        with_factor: Whether scores have the factor k1 + 1.
        num_shards: Shards of every index.
    """

    def __init__(self, with_factor=True, num_shards=3):
        self.with_factor, self.num_shards = with_factor, num_shards
        self.indices, self.calls, self.headers = {}, [], []
        self.answers_to_give_first = []
        self.busy_items = 0
        self.max_window = 10_000
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(double):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                double.headers.append(dict(self.headers))
                double.calls.append((self.command, self.path))
                status, content = (
                    double.answers_to_give_first.pop(0)
                    if double.answers_to_give_first
                    else double.dispatch(self.command, self.path.strip("/"), body, self.headers.get("Content-Type"))
                )
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = answer

        return Handler

    def dispatch(self, method, path, body, kind):
        if path == "_msearch":
            assert (method, kind) == ("POST", "application/x-ndjson")
            assert body.endswith("\n")
            lines = [json.loads(line) for line in body.splitlines()]
            return 200, {"responses": [self.search(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]}
        name, _, action = path.partition("/")
        if method == "PUT" and not action:
            return self.create(name, json.loads(body))
        if name not in self.indices:
            return 404, {"error": {"type": "index_not_found_exception"}, "status": 404}
        return getattr(self, f"{method.lower()}_{action.strip('_') or 'index'}")(name, body, kind)

    def create(self, name, body):
        if name in self.indices:
            return 400, {"error": {"type": "resource_already_exists_exception"}}
        assert name == name.lower()
        assert body["mappings"]["properties"]["terms"]["analyzer"] == "keyword"
        self.indices[name] = {
            "similarity": body["settings"]["similarity"]["default"],
            "mappings": body["mappings"],
            "shards": [Shard() for _ in range(self.num_shards)],
        }
        return 200, {"acknowledged": True}

    def get_mapping(self, name, *_):
        return 200, {name: {"mappings": self.indices[name]["mappings"]}}

    def put_mapping(self, name, body, _):
        self.indices[name]["mappings"].update(json.loads(body))
        return 200, {"acknowledged": True}

    def delete_index(self, name, *_):
        del self.indices[name]
        return 200, {"acknowledged": True}

    def post_refresh(self, *_):
        return 200, {}

    def get_count(self, name, *_):
        return 200, {"count": sum(len(shard.rows) for shard in self.indices[name]["shards"])}

    def post_bulk(self, name, body, kind):
        assert kind == "application/x-ndjson"
        lines = [json.loads(line) for line in body.splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            number = action["index"]["_id"]
            assert set(document) == {"row", "terms"}
            if self.busy_items > 0:
                self.busy_items -= 1
                items.append({"index": {"_id": number, "status": 429, "error": {"type": "rejected"}}})
            elif any(len(term.encode()) > 32766 for term in document["terms"]):
                items.append({"index": {"_id": number, "status": 400, "error": {"type": "immense term"}}})
            else:
                shards = self.indices[name]["shards"]
                shards[int(number) % len(shards)].rows[document["row"]] = document["terms"]
                items.append({"index": {"_id": number, "status": 201}})
        return 200, {"errors": any(item["index"]["status"] >= 300 for item in items), "items": items}

    def search(self, header, body):
        index = self.indices[header["index"]]
        if body["size"] > self.max_window:
            return {"error": {"reason": "Result window is too large"}, "status": 400}
        assert body["sort"] == [{"_score": "desc"}, {"row": "asc"}]
        clauses = [clause["term"]["terms"] for clause in body["query"]["bool"]["should"]]
        weights = {clause["value"]: np.float32(clause["boost"]) for clause in clauses}
        assert len(weights) == len(clauses)
        together = header.get("search_type") == "dfs_query_then_fetch"
        everything = Shard()
        for shard in index["shards"]:
            everything.rows.update(shard.rows)
        hits = []
        for shard in index["shards"]:
            hits += self.score(shard, weights, index["similarity"], (everything if together else shard).statistics())
        hits.sort(key=lambda hit: (-hit["sort"][0], hit["sort"][1]))
        if (after := body.get("search_after")) is not None:
            hits = [hit for hit in hits if (-hit["sort"][0], hit["sort"][1]) > (-after[0], after[1])]
        return {"_shards": {"failed": 0}, "timed_out": False, "hits": {"hits": hits[: body["size"]]}}

    def score(self, shard, weights, similarity, statistics):
        k1, b = similarity["k1"], similarity["b"]
        num_rows, num_terms, frequencies = statistics
        for row, terms in shard.rows.items():
            score = np.float32(0)
            for term in sorted(weights, reverse=True):  # not the order of the query
                count = terms.count(term)
                if count:
                    idf = math.log(1 + (num_rows - frequencies[term] + 0.5) / (frequencies[term] + 0.5))
                    norm = k1 * (1 - b + b * stored_length(len(terms)) / (num_terms / num_rows))
                    factor = k1 + 1 if self.with_factor else 1
                    score += np.float32(weights[term] * idf * factor * count / (count + norm))
            if score > 0:
                yield {"sort": [float(score), row], "_source": {"terms": terms}}
