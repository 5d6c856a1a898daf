"""A stand-in for the Hub: its HTTP API over memory, as `huggingface_hub`, `transformers` and `datasets` call it.

Repositories with branches and commits, git and LFS files, users, tokens that may read or write, private repositories,
downloads with ETags and redirects to another host. Xet is not spoken: clients set HF_HUB_DISABLE_XET.
"""

import base64
import hashlib
import io
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".onnx", ".bin", ".model")
KINDS = {"models": "model", "datasets": "dataset"}


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class File:
    content: bytes
    lfs: bool

    @property
    def oid(self):
        return hashlib.sha256(self.content).hexdigest() if self.lfs else git_oid(self.content)


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    commits: dict = field(default_factory=dict)  # oid -> {path: File}
    branches: dict = field(default_factory=dict)  # name -> oids, oldest first
    titles: list = field(default_factory=list)

    def commit(self, branch, files, title):
        oid = hashlib.sha1(f"{self.id}{branch}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches.setdefault(branch, []).append(oid)
        self.titles.append(title)
        return oid

    def resolve(self, revision):
        """Commit of a branch or of a commit's own id; `None` if there is none."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.commits else None

    def files(self, revision="main"):
        return self.commits[self.resolve(revision)]


@dataclass
class User:
    name: str
    may_write: bool = True


class Answer(Exception):
    """What a request is answered with."""

    def __init__(self, status, body=None, headers=None):
        self.status, self.body, self.headers = status, body, headers or {}


def refuse(status, message, code=None):
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Answer(status, {"error": message}, headers)


class HubServer(ThreadingHTTPServer):
    """Start with `with HubServer() as hub:`; `hub.url` is the endpoint.

    Attributes:
        users: Token -> user.
        repos: (kind, id) -> repository.
        objects: sha256 -> content of LFS files that were uploaded.
        requests: (method, path, status) of everything that was asked; status 0 where the connection was dropped.
        faults: Function of method and path that gives a status to answer with, `"drop"`, or `None`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.users = {"hf_anna": User("anna"), "hf_anna_reads": User("anna", False), "hf_bob": User("bob")}
        self.repos, self.objects, self.requests = {}, {}, []
        self.faults = lambda method, path: None
        self.lock = threading.RLock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Dropped connections are part of the tests."""

    def repo(self, name, kind="model"):
        return self.repos[kind, name]

    def make_repo(self, kind, name, private=False):
        self.repos[kind, name] = repo = Repo(kind, name, private)
        repo.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        return repo

    def add_data_set(self, name, configs=None, script=False, converted=None):
        """A data set, laid out as the Hub does.

        Args:
            name: Its id.
            configs: Configuration -> split -> rows: parquet files on the main branch, named in its README.
            script: Whether its main branch is a loading script in place of that.
            converted: The same of the parquet copy, a folder for each configuration and split on a branch that has
                nothing else; `None` where there is no such branch.
        """
        repo = self.make_repo("dataset", name)
        files = dict(repo.files())
        if script:
            files[f"{name.partition('/')[2]}.py"] = File(b"import datasets\n", False)
            files["README.md"] = File(b"---\nlicense: other\n---\n", False)
        else:
            header = [
                {
                    "config_name": config,
                    "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in splits],
                }
                for config, splits in configs.items()
            ]
            files["README.md"] = File(f"---\n{yaml.safe_dump({'configs': header})}---\n".encode(), False)
            files |= self.stored(configs, "{config}/{split}-00000-of-00001.parquet")
        repo.commit("main", files, "data")
        if converted is not None:
            own = {".gitattributes": File(b"*.parquet filter=lfs\n", False)}
            repo.commit("refs/convert/parquet", own | self.stored(converted, "{config}/{split}/0000.parquet"), "copy")
        return repo

    def stored(self, configs, pattern):
        """Path -> parquet file, uploaded."""
        files = {}
        for config, splits in configs.items():
            for split, rows in splits.items():
                content = io.BytesIO()
                rows.to_parquet(content)
                file = File(content.getvalue(), True)
                self.objects[file.oid] = file.content
                files[pattern.format(config=config, split=split)] = file
        return files

    def asked(self, method, part):
        """Paths that were asked for with success."""
        return [path for verb, path, status in self.requests if verb == method and part in path and 0 < status < 400]


ROUTES = []


def route(method, pattern):
    pattern = pattern.replace("{repo}", r"(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)")

    def add(function):
        ROUTES.append((method, re.compile(pattern + "$"), function))
        return function

    return add


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Quiet."""

    def handle_request(self):
        body = self.read_body()
        self.path_only = urlsplit(self.path).path
        self.query = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
        fault = self.server.faults(self.command, self.path_only)
        if fault == "drop":
            self.server.requests.append((self.command, self.path_only, 0))
            self.close_connection = True
            self.connection.close()
            return
        try:
            with self.server.lock:
                answer = refuse(fault, "broken") if fault else self.find_answer(body)
        except Answer as raised:
            answer = raised
        self.server.requests.append((self.command, self.path_only, answer.status))
        self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def find_answer(self, body):
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            found = pattern.match(self.path_only)
            if wanted == method and found:
                return function(self, body, **{k: unquote(v or "") for k, v in found.groupdict().items()})
        return refuse(404, f"No such page: {self.path_only}")

    def send(self, answer):
        body = {} if answer.body is None else answer.body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # ---- Who may do what ----

    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.users:
            raise refuse(401, "Invalid credentials in Authorization header")
        return self.server.users.get(token)

    def seen(self, kind, name):
        """The repository, if whoever asks may see it."""
        user, repo = self.user(), self.server.repos.get((KINDS.get(kind, kind), name))
        if repo is None or (repo.private and (user is None or user.name != name.partition("/")[0])):
            raise refuse(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def written(self, kind, name):
        """The repository, if whoever asks may write to it."""
        repo, user = self.seen(kind, name), self.user()
        if user is None or not user.may_write or user.name != name.partition("/")[0]:
            raise refuse(403, "Forbidden: this token has no write access")
        return repo

    def commit_of(self, repo, revision):
        oid = repo.resolve(revision)
        if oid is None:
            raise refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    # ---- Users and repositories ----

    @route("GET", "/api/whoami-v2")
    def whoami(self, body):
        user = self.user()
        if user is None:
            return refuse(401, "Invalid username or password.")
        role = "write" if user.may_write else "read"
        return Answer(200, {"type": "user", "name": user.name, "orgs": [], "auth": {"accessToken": {"role": role}}})

    @route("POST", "/api/repos/create")
    def create(self, body):
        user, asked = self.user(), json.loads(body)
        if user is None:
            return refuse(401, "Invalid username or password.")
        owner, kind = asked.get("organization") or user.name, asked.get("type", "model")
        if owner != user.name or not user.may_write:
            return refuse(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        name = f"{owner}/{asked['name']}"
        where = {"url": f"{self.server.url}/{'datasets/' if kind == 'dataset' else ''}{name}"}
        if (kind, name) in self.server.repos:
            return Answer(409, {"error": f"You already created this {kind} repo", **where})
        self.server.make_repo(kind, name, asked.get("visibility") == "private")
        return Answer(200, where)

    @route("GET", "/api/{repo}(?:/revision/(?P<revision>[^/]+))?")
    def info(self, body, kind, name, revision):
        repo = self.seen(kind, name)
        oid = self.commit_of(repo, revision or "main")
        header = front_matter(repo.files(oid).get("README.md", File(b"", False)).content)
        siblings = [{"rfilename": path} for path in sorted(repo.files(oid))]
        facts = {"id": name, "private": repo.private, "sha": oid, "gated": False, "disabled": False, "downloads": 0}
        facts |= {"tags": header.get("tags", []), "cardData": header, "siblings": siblings}
        dates = dict.fromkeys(("createdAt", "lastModified"), "2026-01-01T00:00:00.000Z")
        return Answer(200, {**facts, **dates})

    @route("POST", "/api/{repo}/branch/(?P<branch>[^/]+)")
    def branch(self, body, kind, name, branch):
        repo = self.written(kind, name)
        if branch.startswith("refs/"):
            return refuse(400, f"Invalid reference name for a branch: {branch}")
        if branch in repo.branches:
            return refuse(409, f"Reference already exists: {branch}")
        repo.branches[branch] = [self.commit_of(repo, json.loads(body or b"{}").get("startingPoint", "main"))]
        return Answer(200)

    # ---- Uploads ----

    @route("POST", "/api/validate-yaml")
    def validate(self, body):
        try:
            licence = front_matter(json.loads(body)["content"].encode()).get("license", "other")
        except yaml.YAMLError as error:
            return Answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        wrong = " " in str(licence)
        errors = [{"message": f'"license" must be one of [apache-2.0, mit, ...], not {licence!r}'}] if wrong else []
        return Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    @route("POST", "/api/{repo}/preupload/(?P<revision>[^/]+)")
    def preupload(self, body, kind, name, revision):
        repo = self.written(kind, name)
        there = repo.files(self.commit_of(repo, revision))
        files = []
        for asked in json.loads(body)["files"]:
            mode = "lfs" if asked["path"].endswith(LFS_SUFFIXES) else "regular"
            oid = there[asked["path"]].oid if asked["path"] in there else None
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Answer(200, {"files": files})

    @route("POST", r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
    def lfs_batch(self, body, prefix, name):
        self.written("dataset" if prefix else "model", name)
        objects = []
        for asked in json.loads(body)["objects"]:
            new = asked["oid"] not in self.server.objects
            actions = {"actions": {"upload": {"href": f"{self.server.url}/storage/{asked['oid']}"}}} if new else {}
            objects.append({"oid": asked["oid"], "size": asked["size"], "authenticated": True, **actions})
        return Answer(200, {"transfer": "basic", "objects": objects})

    @route("PUT", "/storage/(?P<oid>[0-9a-f]{64})")
    def store(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return refuse(400, "The content is not what was announced")
        self.server.objects[oid] = body
        return Answer(200)

    @route("POST", "/api/{repo}/commit/(?P<revision>[^/]+)")
    def commit(self, body, kind, name, revision):
        repo = self.written(kind, name)
        if revision not in repo.branches:
            return refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files, title = dict(repo.files(revision)), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    return refuse(400, f"LFS pointer points to a file that does not exist: {value['path']}")
                files[value["path"]] = File(self.server.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(revision, files, title)
        return Answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"})

    # ---- Downloads ----

    @route("GET", "/api/{repo}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, body, kind, name, revision, folder):
        repo = self.seen(kind, name)
        files = repo.files(self.commit_of(repo, revision))
        inside = {path: file for path, file in files.items() if path.startswith(f"{folder}/" if folder else "")}
        if folder and not inside:
            return refuse(404, f"{folder} does not exist", "EntryNotFound")
        rows, above = [], len(folder) + 1 if folder else 0
        whole = self.query.get("recursive", "").lower() == "true"
        for path, file in sorted(inside.items()):
            parts = path[above:].split("/")
            depths = range(1, len(parts) if whole else min(2, len(parts)))
            for depth in depths:
                directory = path[:above] + "/".join(parts[:depth])
                row = {"type": "directory", "oid": git_oid(directory.encode()), "size": 0, "path": directory}
                rows += [row] if row not in rows else []
            if len(parts) == 1 or whole:
                rows.append(described(path, file))
        return Answer(200, rows)

    @route("POST", "/api/{repo}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, body, kind, name, revision):
        repo = self.seen(kind, name)
        files = repo.files(self.commit_of(repo, revision))
        asked = parse_qs(body.decode()) if not body.startswith(b"{") else json.loads(body)
        return Answer(200, [described(path, files[path]) for path in asked.get("paths", []) if path in files])

    @route("GET", r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, body, prefix, name, revision, path):
        repo = self.seen("dataset" if prefix else "model", name)
        oid = self.commit_of(repo, revision)
        file = repo.files(oid).get(path)
        headers = {"X-Repo-Commit": oid}
        if file is None:
            return Answer(404, {}, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        headers["ETag"] = f'"{file.oid}"'
        if not file.lfs:
            return Answer(200, file.content, headers)
        # Another host, as that of the real storage.
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": len(file.content)}
        return Answer(302, b"", {**headers, "Location": f"http://localhost:{self.server.server_port}/cdn/{file.oid}"})

    @route("GET", "/cdn/(?P<oid>[0-9a-f]{64})")
    def cdn(self, body, oid):
        content, wanted = self.server.objects[oid], re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return Answer(200, content, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers = {"ETag": f'"{oid}"', "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return Answer(206, content[first : last + 1], headers)


def front_matter(card):
    found = re.match(r"\s*---\n(.*?)\n---", card.decode(), flags=re.DOTALL)
    return (yaml.safe_load(found[1]) or {}) if found else {}


def described(path, file):
    """A file as the tree shows it."""
    row = {"type": "file", "oid": git_oid(file.content), "size": len(file.content), "path": path}
    lfs = {"lfs": {"oid": file.oid, "size": len(file.content), "pointerSize": 134}} if file.lfs else {}
    return {**row, **lfs}
