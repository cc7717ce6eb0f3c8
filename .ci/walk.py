"""Runs the commands of a document and compares what they print with what the document shows.

    walk.py DOCUMENT [--write] [--set FROM=TO]...

A ```sh block is run as written, all in one shell, with every FROM replaced by TO; it must succeed. A ```json block after it
shows what it prints: the same shape must come out (the same fields, with values of the same kind), or with --write it takes
what comes out. Fields that are zero are left out of JSON: a document that must hold on every chain shows calls whose answer has
such fields with -emit-defaults.
"""

import json
import re
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
END = "---- end of block ----"


def shape(value):
    """What must not change from run to run."""
    if isinstance(value, dict):
        # Fields begin with a small letter. Other names are the keys of a map, like the reasons of GetNodeStatus: which of
        # them are there is content.
        return {name: shape(part) for name, part in value.items() if name[:1].islower()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str):
        return "digits" if value.isdigit() else "hex" if re.fullmatch(r"[0-9a-f]{64}", value) else "text"
    return type(value).__name__


def documents(text):
    """One JSON document after another, as streams print them."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


def main():
    path, *rest = sys.argv[1:]
    write = "--write" in rest
    replaced = [pair.split("=", 1) for pair in rest if "=" in pair]
    text = open(path).read()
    script = tempfile.NamedTemporaryFile("w", suffix=".sh")
    shell = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    printed, ran, shown, pieces, at = "", 0, 0, [], 0
    for block in FENCE.finditer(text):
        kind, body = block.groups()
        if kind == "sh":
            command = body
            for old, new in replaced:
                command = command.replace(old, new)
            # From a file, so that no command takes the next ones for its input.
            script.seek(0)
            script.truncate()
            script.write(command)
            script.flush()
            shell.stdin.write(f"set -e\n. {script.name} </dev/null\necho '{END}'\n")
            shell.stdin.flush()
            printed = ""
            while (line := shell.stdout.readline()) != END + "\n":
                if not line:
                    sys.exit(f"{path}: this failed:\n{body}\nafter printing\n{printed}")
                printed += line
            ran += 1
        elif kind == "json":
            for old, new in replaced:
                printed = printed.replace(new, old)
            if write:
                pieces += [text[at : block.start(2)], printed]
                at = block.end(2)
            elif [shape(one) for one in documents(printed)] != [shape(one) for one in documents(body)]:
                sys.exit(f"{path}: the document shows\n{body}\nbut this came out:\n{printed}")
            shown += 1
    shell.stdin.close()
    shell.wait()
    if write:
        open(path, "w").write("".join(pieces) + text[at:])
    print(f"{path}: {ran} blocks ran, {shown} outputs {'written' if write else 'compared'}")


main()
