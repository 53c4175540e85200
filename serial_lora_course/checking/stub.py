"""Whether a learner's code stands beside the stub's line that it should replace."""

from __future__ import annotations

import ast
import inspect
import textwrap
from contextlib import suppress
from typing import Any


def stands_beside_stub(answer: Any) -> bool:
    """Whether a function, or a method of a class, has code beside the line that raises."""
    with suppress(OSError, TypeError, SyntaxError):  # its source cannot be found
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        lines = [[node for node in each.body if not _is_given(node)] for each in functions]
        return any(len(own) > 1 and any(map(_is_stub, own)) for own in lines)
    return False


def _is_stub(node: ast.stmt) -> bool:
    return ast.unparse(node).startswith("raise NotImplementedError")


def _is_given(node: ast.stmt) -> bool:
    """Whether a statement is the stub's own, or none: a docstring, `super().__init__()`, `pass`."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Pass) or ast.unparse(node).startswith("super()")
