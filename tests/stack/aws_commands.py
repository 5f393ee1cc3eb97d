"""Checks the `aws` commands of the documents without an account: each command and each of its options exists, each block is
valid shell, and the outputs, resources and parameters that it names are in template.yaml.

tests/tests/documents.rs checks all other commands of the same documents.
"""

import re
import subprocess
import sys

import botocore.session
import yaml
from botocore import xform_name

import deploy

# The changelog's commands are those of earlier versions.
LISTED = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=deploy.ROOT,
                        check=True, capture_output=True, text=True).stdout
DOCUMENTS = [deploy.ROOT / name for name in LISTED.splitlines() if name != "CHANGELOG.md"]
# The options of the AWS CLI's own commands, which are no API operations.
OWN = {("s3", "cp"): {"metadata-directive"}, ("s3", "ls"): {"recursive"}, ("s3", "sync"): set()}
EVERYWHERE = {"query", "output", "endpoint-url"}


def template():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    return yaml.load((deploy.ROOT / "template.yaml").read_text(), Loader)


def options_of(session, service, operation):
    """Returns the options of an API operation, as the AWS CLI spells them."""
    model = session.get_service_model("s3" if service == "s3api" else service)
    names = {xform_name(name).replace("_", "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    members = shape.members if shape else {}
    options = {xform_name(name).replace("_", "-") for name in members}
    return options | {f"no-{xform_name(name)}" for name, member in members.items() if member.type_name == "boolean"}


def check_block(session, block):
    """Returns the problems of a block of shell, and the number of its aws commands."""
    syntax = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    problems = [syntax.stderr] if syntax.returncode else []
    # A command extends to the next one.
    commands = re.split(r"(?=\baws [a-z0-9]+ [a-z-]+)", block.replace("\\\n", " "))[1:]
    for command in commands:
        service, operation = re.match(r"aws ([a-z0-9]+) ([a-z0-9-]+)", command).groups()
        try:
            known = OWN[service, operation] if service == "s3" else options_of(session, service, operation)
        except (KeyError, botocore.exceptions.UnknownServiceError):
            problems.append(f"there is no aws {service} {operation}")
            continue
        used = set(re.findall(r"(?<=\s)--([a-z-]+)", re.split(r"[|;]|&&|\n(?!\s)", command)[0]))
        problems += [f"aws {service} {operation} has no --{option}" for option in sorted(used - known - EVERYWHERE)]
    return problems, len(commands)


def main():
    problems, commands, blocks, session, stack = [], 0, 0, botocore.session.get_session(), template()
    for document in DOCUMENTS:
        text = document.read_text()
        found = []
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            block_problems, block_commands = check_block(session, block)
            found += block_problems
            commands, blocks = commands + block_commands, blocks + 1
        for output in set(re.findall(r"\b(?:out|depth|look|move) \"?([A-Z]\w+)", text)) - stack["Outputs"].keys():
            found.append(f"template.yaml has no output {output}")
        for logs in set(re.findall(r"\blogs (\w+Logs)", text)) - stack["Resources"].keys():
            found.append(f"template.yaml has no {logs}")
        for parameters in re.findall(r'SET="([^"]+)"', text):
            for name in {pair.split("=")[0] for pair in parameters.split()} - stack["Parameters"].keys() - {"Parameter"}:
                found.append(f"template.yaml has no parameter {name}")
        problems += [f"{document.relative_to(deploy.ROOT)}: {problem}" for problem in found]
    if problems or commands < 20:
        sys.exit("\n".join(problems) or f"only {commands} commands were found")
    print(f"[documents] {commands} aws commands in {blocks} blocks are commands of the AWS CLI")


if __name__ == "__main__":
    main()
