"""A hub on this machine: the part of the HTTP interface of huggingface.co that loading and uploading use. Commits hold
whole files in memory; ``after`` lets a test do something once a file was served, for instance move a branch."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class FakeHub:
    """Repositories by name: files by commit, and the commit of each branch. ``served`` are the paths asked for."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    served: list[tuple[str, str, str]] = field(default_factory=list)  # method, commit, file
    private: set[str] = field(default_factory=set)
    created: list[dict] = field(default_factory=list)
    refuse: int = 0  # HTTP status that every write gets
    after: Callable[[str], None] = lambda file: None
    url: str = ""

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with these files to a branch, and return it."""
        digest = hashlib.sha1(repr((name, len(self.commits.get(name, ())), sorted(files))).encode()).hexdigest()
        self.commits.setdefault(name, {})[digest] = files
        self.branches.setdefault(name, {})[branch] = digest
        return digest

    def commit_folder(self, name: str, folder: Path) -> str:
        """Add the files of a folder as a commit."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.commit(name, files)

    def newest(self, name: str) -> dict[str, bytes]:
        """The files of the branch main."""
        return self.commits[name][self.branches[name]["main"]]

    def resolved(self, name: str, revision: str) -> str | None:
        """The commit that a branch or commit names."""
        if name not in self.commits:
            return None
        return revision if revision in self.commits[name] else self.branches[name].get(revision)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def reply(self, status: int, content: object = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        if name not in self.hub.commits:
            return self.reply(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
        kind, revision = (parts[4:6] if api else parts[2:4]) if len(parts) > 4 or not api else ("revision", "main")
        commit = self.hub.resolved(name, revision)
        if commit is None:
            return self.reply(404, {"error": "not found"}, X_Error_Code="RevisionNotFound")
        files = self.hub.commits[name][commit]
        if kind == "revision":
            return self.reply(
                200,
                {
                    "id": name,
                    "sha": commit,
                    "private": name in self.hub.private,
                    "siblings": [{"rfilename": f} for f in files],
                },
            )
        if kind == "tree":
            below = "".join(f"{part}/" for part in parts[6:])
            listed = [
                {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for f, c in files.items()
                if f.startswith(below)
            ]
            return self.reply(200, listed) if listed else self.reply(404, X_Error_Code="EntryNotFound")
        file = "/".join(parts[4:])
        self.hub.served.append((self.command, commit, file))
        if file not in files:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        tag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        self.reply(200, files[file], ETag=tag, X_Repo_Commit=commit)
        if self.command == "GET":
            self.hub.after(file)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.hub.refuse:
            return self.reply(self.hub.refuse, {"error": "no"})
        if parts[1:] == ["validate-yaml"]:
            return self.reply(200, {"errors": [], "warnings": []})
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.commits:
                return self.reply(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
            self.hub.created.append(asked)
            if asked.get("visibility") == "private":
                self.hub.private.add(name)
            self.hub.commit(name, {".gitattributes": b""})
            return self.reply(200, {"url": f"{self.hub.url}/{name}", "id": name})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.reply(200, {"files": files})
        files = dict(self.hub.newest(name))
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                parent = line["value"].get("parentCommit")
                if parent not in (None, self.hub.resolved(name, "main")):
                    return self.reply(412, {"error": "the branch has moved"})
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        commit = self.hub.commit(name, files)
        self.reply(200, {"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "success": True})


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that answers at ``url`` until the block ends."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
