"""Random training programs, and random changes to them between two steps, as text of Python.

A program is a :class:`Spec`, which :func:`text_of` writes out: a net, a loss, an optimizer and a step, with *knobs* and
*effects* in them. A knob is a Python value that the step reads: some *place* holds it (an attribute, a closure cell, a
default argument …), some *reader* fetches it, and some *site* of the step (forward, loss, hook …) puts it to use. An effect
is what the step's own Python does beside its tensors: it counts, appends, draws, prints. A change is a line of Python that
runs between two steps. Everything is text so that a sequence can be shown, and run by hand.
"""

# ruff: noqa: E501 - lines of programs are as long as they are

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# --- values, places and readers ---------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "float": [1.0, 0.5, 0.25, 0.75, 1.5],
    "int": [1, 2, 3],
    "bool": [True, False],
    "str": ["relu", "tanh", "sigmoid"],
}

PLACES: dict[str, tuple[str, str, str]] = {
    # name: set up, read, change; @ is the knob's name, $ its value, § an @
    "module attribute": ("model.@ = $", "model.@", "model.@ = $"),
    "attribute of a layer": ("model.head.@ = $", "model.head.@", "model.head.@ = $"),
    "attribute of the loss": (
        "@_o = getattr(criterion, '__self__', criterion)\n@_o.@ = $",
        "@_o.@",
        "@_o.@ = $",
    ),
    "attribute of an object": ("class @_Box: pass\n@ = @_Box()\n@.v = $", "@.v", "@.v = $"),
    "object replaced": ("class @_Box:\n    def __init__(self, v): self.v = v\n@ = @_Box($)", "@.v", "@ = @_Box($)"),
    "attribute of a function": ("def @(): pass\n@.v = $", "@.v", "@.v = $"),
    "attribute of a Python module": ("@ = types.ModuleType('@')\n@.v = $", "@.v", "@.v = $"),
    "imported name": (
        "sys.modules['fuzz_@'] = types.ModuleType('fuzz_@')\nsys.modules['fuzz_@'].v = $\n"
        "def @():\n    import fuzz_@\n    return fuzz_@.v",
        "@()",
        "sys.modules['fuzz_@'].v = $",
    ),
    "global": ("@ = $", "@", "@ = $"),
    "globals()": ("@ = $", "globals()['@']", "@ = $"),
    "closure cell": (
        "def @_make(v):\n    def read(): return v\n    def write(new):\n        nonlocal v\n        v = new\n"
        "    return read, write\n@, @_write = @_make($)",
        "@()",
        "@_write($)",
    ),
    "container in a closure": (
        "def @_make(v):\n    held = {'v': [v]}\n    return lambda: held['v'][0], held\n@, @_held = @_make($)",
        "@()",
        "@_held['v'][0] = $",
    ),
    "default argument": ("def @(v=$): return v", "@()", "@.__defaults__ = ($,)"),
    "container as default": ("@_held = [$]\ndef @(v=@_held): return v[0]", "@()", "@_held[0] = $"),
    "keyword default": ("def @(*, v=$): return v", "@()", "@.__kwdefaults__['v'] = $"),
    "partial replaced": (
        "def @_f(*, v): return v\n@ = functools.partial(@_f, v=$)",
        "@()",
        "@ = functools.partial(@_f, v=$)",
    ),
    "partial's keywords": ("def @_f(*, v): return v\n@ = functools.partial(@_f, v=$)", "@()", "@.keywords['v'] = $"),
    "function replaced": ("def @(): return $", "@()", "def @(): return $"),
    "code replaced": ("def @(): return $", "@()", "@.__code__ = (lambda: $).__code__"),
    "dict item": ("@ = {'v': $}", "@['v']", "@['v'] = $"),
    "dict.get": ("@ = {'v': $}", "@.get('v')", "@.update(v=$)"),
    "dict replaced": ("@ = {'v': $}", "@['v']", "@ = {'v': $}"),
    "dict of the module": ("model.@ = {'a': {'v': $}}", "model.@['a']['v']", "model.@['a']['v'] = $"),
    "values of a dict": ("@ = {'v': $}", "list(@.values())[0]", "@['v'] = $"),
    "items of a dict": ("@ = {'v': $}", "[v for _, v in @.items()][0]", "@['v'] = $"),
    "unpacked dict": ("@ = {'v': $}", "dict(**@)['v']", "@['v'] = $"),
    "list item": ("@ = [0, $]", "@[1]", "@[1] = $"),
    "last of a list": ("@ = [$]", "@[-1]", "@.append($)"),
    "loop over a list": ("@ = [$]", "[v for v in @][-1]", "@[0] = $"),
    "unpacked list": ("@ = [0, $]", "(lambda a, b: b)(*@)", "@[1] = $"),
    "deque": ("@ = collections.deque([$])", "@[0]", "@.appendleft($)"),
    "tuple replaced": ("model.@ = ($, 0)", "model.@[0]", "model.@ = ($, 0)"),
    "named tuple replaced": (
        "@_T = collections.namedtuple('@_T', 'v')\n@ = @_T($)",
        "@.v",
        "@ = @._replace(v=$)",
    ),
    "OrderedDict": ("@ = collections.OrderedDict(v=$)", "@['v']", "@['v'] = $"),
    "defaultdict": ("@ = collections.defaultdict(lambda: $)", "@['v']", "@['v'] = $"),
    "ChainMap": ("@_low = {'v': $}\n@ = collections.ChainMap({}, @_low)", "@['v']", "@_low['v'] = $"),
    "UserDict": ("@ = collections.UserDict(v=$)", "@['v']", "@['v'] = $"),
    "mapping proxy": ("@_d = {'v': $}\n@ = types.MappingProxyType(@_d)", "@['v']", "@_d['v'] = $"),
    "namespace": ("@ = types.SimpleNamespace(v=$)", "@.v", "@.v = $"),
    "nested namespace": (
        "@ = types.SimpleNamespace(a=types.SimpleNamespace(v=$))",
        "@.a.v",
        "@.a.v = $",
    ),
    "namespace of the module": ("model.@ = types.SimpleNamespace(v=$)", "model.@.v", "model.@.v = $"),
    "dataclass": ("@_D = dataclasses.make_dataclass('@_D', ['v'])\n@ = @_D($)", "@.v", "@.v = $"),
    "frozen dataclass replaced": (
        "@_D = dataclasses.make_dataclass('@_D', ['v'], frozen=True)\n@ = @_D($)",
        "@.v",
        "@ = dataclasses.replace(@, v=$)",
    ),
    "object in a list in a dict": (
        "class @_Box: pass\n@ = {'a': [@_Box()]}\n@['a'][0].v = $",
        "@['a'][0].v",
        "@['a'][0].v = $",
    ),
    "class attribute": ("class @:\n    v = $", "@.v", "@.v = $"),
    "class attribute by an instance": ("class @_C:\n    v = $\n@ = @_C()", "@.v", "@_C.v = $"),
    "class attribute hidden": ("class @_C:\n    v = $\n@ = @_C()", "@.v", "@.v = $"),
    "inherited class attribute": (
        "class @_B:\n    v = $\nclass @_C(@_B): pass\n@ = @_C()",
        "@.v",
        "@_B.v = $",
    ),
    "class of the net": ("Net.@ = $", "model.@", "Net.@ = $"),
    "class attribute of a metaclass": (
        "class @_M(type):\n    v = $\nclass @(metaclass=@_M): pass",
        "@.v",
        "@_M.v = $",
    ),
    "property": (
        "class @_C:\n    def __init__(self): self._v = $\n    §property\n    def v(self): return self._v\n@ = @_C()",
        "@.v",
        "@._v = $",
    ),
    "property replaced": (
        "class @_C:\n    v = property(lambda self: $)\n@ = @_C()",
        "@.v",
        "@_C.v = property(lambda self: $)",
    ),
    "slot": ("class @_C:\n    __slots__ = ('v',)\n@ = @_C()\n@.v = $", "@.v", "@.v = $"),
    "own descriptor": (
        "class @_D:\n    def __get__(self, o, t=None): return o.held['v']\n"
        "class @_C:\n    v = @_D()\n    def __init__(self): self.held = {'v': $}\n@ = @_C()",
        "@.v",
        "@.held['v'] = $",
    ),
    "__getattr__": (
        "class @_C:\n    def __init__(self): self.held = {'v': $}\n"
        "    def __getattr__(self, name): return self.held[name]\n@ = @_C()",
        "@.v",
        "@.held['v'] = $",
    ),
    "__getitem__": (
        "class @_C:\n    def __init__(self): self.held = [$]\n    def __getitem__(self, i): return self.held[i]\n@ = @_C()",
        "@[0]",
        "@.held[0] = $",
    ),
    "__call__": (
        "class @_C:\n    def __init__(self): self.v = $\n    def __call__(self): return self.v\n@ = @_C()",
        "@()",
        "@.v = $",
    ),
    "class of an object": (
        "class @_A:\n    v = $\n@ = @_A()",
        "@.v",
        "class @_A2:\n    v = $\n@.__class__ = @_A2",
    ),
    "method of a class replaced": (
        "class @_C:\n    def v(self): return $\n@ = @_C()",
        "@.v()",
        "@_C.v = lambda self: $",
    ),
    "method of an instance": (
        "class @_C:\n    def v(self): return $\n@ = @_C()",
        "@.v()",
        "@.v = lambda: $",
    ),
    "bound method": (
        "class @_C:\n    def __init__(self): self.v = $\n    def read(self): return self.v\n@_o = @_C()\n@ = @_o.read",
        "@()",
        "@_o.v = $",
    ),
    "static method": (
        "class @:\n    §staticmethod\n    def v(): return $",
        "@.v()",
        "@.v = staticmethod(lambda: $)",
    ),
    "enum": (
        "@_E = enum.Enum('@_E', {'a': $})\nmodel.@ = @_E.a",
        "model.@.value",
        "model.@ = enum.Enum('@_F', {'b': $}).b",
    ),
    "getattr by name": ("class @_Box: pass\n@ = @_Box()\n@.v = $", "getattr(@, 'v', None)", "@.v = $"),
    "vars": ("class @_Box: pass\n@ = @_Box()\n@.v = $", "vars(@)['v']", "@.v = $"),
    "attrgetter": (
        "@ = types.SimpleNamespace(a=types.SimpleNamespace(v=$))\n@_get = operator.attrgetter('a.v')",
        "@_get(@)",
        "@.a.v = $",
    ),
    "itemgetter": ("@ = {'v': $}\n@_get = operator.itemgetter('v')", "@_get(@)", "@['v'] = $"),
    "object array": ("@ = np.array([$], object)", "@[0]", "@[0] = $"),
    "weak reference": ("class @_Box: pass\n@_o = @_Box()\n@_o.v = $\n@ = weakref.ref(@_o)", "@().v", "@_o.v = $"),
    "context variable": ("@ = contextvars.ContextVar('@')\n_ = @.set($)", "@.get()", "_ = @.set($)"),
    "thread's local": ("@ = threading.local()\n@.v = $", "@.v", "@.v = $"),
    "cached function": (
        "@_v = $\n§functools.cache\ndef @(): return @_v",
        "@()",
        "@_v = $\n@.cache_clear()",
    ),
    "cached property": (
        "class @_C:\n    w = $\n    §functools.cached_property\n    def v(self): return self.w\n@ = @_C()",
        "@.v",
        "@.w = $\ndel @.v",
    ),
    "membership": ("@ = {$}", "next(v for v in @_all if v in @)", "@.clear()\n@.add($)"),
    "repr of a string": ("@ = [repr($)]", "eval(@[0])", "@[0] = repr($)"),
}
NUMBERS: dict[str, tuple[str, str, str]] = {
    "numpy scalar": ("@ = types.SimpleNamespace(v=np.float64($))", "float(@.v)", "@.v = np.float64($)"),
    "numpy array": ("@ = np.array([0.0, $])", "float(@[1])", "@[1] = $"),
    "numpy array of no dimensions": ("model.@ = np.array($)", "float(model.@)", "model.@[...] = $"),
    "numpy array replaced": ("model.@ = np.array([$])", "float(model.@.sum())", "model.@ = np.array([$])"),
    "environment": ("os.environ['KOBAI_FUZZ'] = '$'", "float(os.environ['KOBAI_FUZZ'])", "os.environ['KOBAI_FUZZ'] = '$'"),
    "environment, getenv": ("os.environ['KOBAI_FUZZ'] = '$'", "float(os.getenv('KOBAI_FUZZ'))", "os.environ['KOBAI_FUZZ'] = '$'"),
    "text": ("@ = {'v': '$'}", "float(@['v'])", "@['v'] = '$'"),
    "fraction": ("@ = [fractions.Fraction($)]", "float(@[0])", "@[0] = fractions.Fraction($)"),
    "decimal": ("@ = [decimal.Decimal($)]", "float(@[0])", "@[0] = decimal.Decimal($)"),
    "complex": ("@ = [complex($, 0)]", "@[0].real", "@[0] = complex($, 0)"),
    "len of a list": ("@ = [0]", "(1.0 / len(@))", "@.append($)"),
    "len of a dict": ("@ = {}", "(1.0 / (1 + len(@)))", "@[len(@)] = $"),
    "len of the module's list": ("model.@ = []", "(1.0 / (1 + len(model.@)))", "model.@.append($)"),
    "truth of a list": ("@ = []", "(0.5 if @ else 1.0)", "@.append($)"),
    "own len": (
        "class @_C:\n    def __init__(self): self.held = []\n    def __len__(self): return len(self.held)\n@ = @_C()",
        "(1.0 / (1 + len(@)))",
        "@.held.append($)",
    ),
    "sum of a list": ("@ = [0.25, $]", "sum(@)", "@[1] = $"),
    "max of a list": ("@ = [0.25, $]", "max(@)", "@[1] = $"),
    "array of the standard library": ("@ = array.array('d', [$])", "@[0]", "@[0] = $"),
    "bytearray": ("@ = bytearray([1])", "(1.0 / @[0])", "@[0] += 1"),
    "learning rate": ("", "(optimizer.param_groups[0]['lr'] * 10)", "optimizer.param_groups[0]['lr'] = $ / 10"),
    "number of groups": ("", "(1.0 / len(optimizer.param_groups))", "optimizer.add_param_group({'params': [kobai.ones(2, requires_grad=True)]})"),
    "tensor in place": ("@ = kobai.tensor($)", "@", "_ = @.fill_($)"),
    "tensor replaced": ("@ = types.SimpleNamespace(v=kobai.tensor($))", "@.v", "@.v = kobai.tensor($)"),
    "tensor in a list replaced": ("@ = [kobai.tensor($)]", "@[0]", "@[0] = kobai.tensor($)"),
    "global tensor replaced": ("@ = kobai.tensor($)", "@", "@ = kobai.tensor($)"),
    "tensor over numpy's memory": ("@_a = np.array([$], 'f')\n@ = kobai.from_numpy(@_a)", "@", "@_a[0] = $"),
    "mode of the net": ("", "(1.0 if model.training else 0.5)", "_ = model.train(not model.training)"),
    "mode of a layer": ("", "(1.0 if model.head.training else 0.5)", "model.head.training = not model.head.training"),
    "requires_grad": ("", "(1.0 if model.head.bias.requires_grad else 0.5)", "_ = model.head.bias.requires_grad_(not model.head.bias.requires_grad)"),
    "number of parameters": (
        "", "(2.0 / len(list(model.parameters())))",
        "model.@ = nn.Parameter(kobai.ones(2))",
    ),
    "number of layers": ("", "(2.0 / len(model.body))", "_ = model.body.append(nn.Identity())"),
    "file": (
        "@ = os.path.join(folder, '@')\nwith open(@, 'w') as f: _ = f.write('$')", "float(open(@).read())",
        "with open(@, 'w') as f: _ = f.write('$')",
    ),
    "default dtype": (
        "kobai.set_default_dtype(kobai.float32)",
        "(0.5 if kobai.get_default_dtype() == kobai.float64 else 1.0)",
        "kobai.set_default_dtype(kobai.float64)",
    ),
    "grad mode": ("", "(1.0 if model.head.weight.grad is None else 0.5)", "model.head.weight.grad = None"),
}  # fmt: skip
"""Places of numbers only, or of what a number is made from."""

READERS: dict[str, tuple[str, str]] = {
    # name: set up, expression; % is the expression that reads the place
    "inline": ("", "%"),
    "function": ("def @_r(): return %", "@_r()"),
    "two functions": ("def @_s(): return %\ndef @_r(): return @_s()", "@_r()"),
    "lambda": ("@_r = lambda: %", "@_r()"),
    "nested": ("", "(lambda: %)()"),
    "comprehension": ("", "[% for _ in 'a'][0]"),
    "generator": ("", "next(% for _ in 'a')"),
    "generator function": ("def @_r():\n    yield %", "next(@_r())"),
    "map": ("", "list(map(lambda _: %, 'a'))[0]"),
    "key of a sort": ("@_r = []", "min([0], key=lambda _: 0) or %"),
    "method": ("class @_R:\n    def read(self): return %\n@_r = @_R()", "@_r.read()"),
    "property": ("class @_R:\n    read = property(lambda self: %)\n@_r = @_R()", "@_r.read"),
    "callable object": ("class @_R:\n    def __call__(self): return %\n@_r = @_R()", "@_r()"),
    "decorated": (
        "def @_wrap(f):\n    §functools.wraps(f)\n    def inner(*a, **k): return f(*a, **k)\n    return inner\n"
        "§@_wrap\ndef @_r(): return %",
        "@_r()",
    ),
    "partial": ("def @_s(_): return %\n@_r = functools.partial(@_s, 0)", "@_r()"),
    "callback in a list": ("@_r = [lambda: %]", "[f() for f in @_r][0]"),
    "callback in a dict": ("@_r = {'f': lambda: %}", "@_r['f']()"),
    "copy first": ("", "copy.copy(%)"),
    "walrus": ("", "(_v := %)"),
}

USES: dict[str, dict[str, list[str]]] = {
    # what a site does with a value, # ; sites with statements have variables h or loss and out, hooks an expression of g
    "float": {
        "h": [
            "h = h * #", "h = h + h.mean() * #", "h = h - # * h.detach()", "h = F.leaky_relu(h, float(#))",
            "h = F.dropout(h, float(#) / 2, model.training)", "h = h.clamp(-float(#), float(#))",
            "h = kobai.where(h > 0, h, h * #)", "h = h + kobai.full((1,), float(#))", "h = # / (1 + h * h)",
        ],
        "loss": [
            "loss = loss * #", "loss = loss + # * out.pow(2).mean()",
            "loss = loss + # * sum(p.pow(2).sum() for p in model.parameters())",
            "for _name, p in model.named_parameters():\n    if 'bias' not in _name and p.requires_grad: loss = loss + # * p.abs().sum()",
            "loss = (1 - #) * loss + # * out.abs().mean()",
        ],
        "g": ["g * #"],
    },
    "int": {
        "h": ["for _ in range(#): h = kobai.tanh(h)", "h = h ** #", "h = h * #", "h = h[:, :#].sum(1, keepdim=True) + h"],
        "loss": ["loss = loss / #", "loss = loss + out[:, # % 3].mean()", "loss = sum([loss] * #)"],
        "g": ["g * #"],
    },
    "bool": {
        "h": [
            "if #: h = h * 0.5", "h = h if # else h.detach()", "if not #: h = kobai.tanh(h)", "h = h * (2 if # else 1)",
            "with kobai.set_grad_enabled(bool(#)): h = h * 2.0", "assert # in (True, False); h = h + int(#)",
            "h = F.dropout(h, 0.5, training=#)", "while #:\n    h = h * 0.5\n    break",
        ],
        "loss": ["if #: loss = loss + out.abs().mean()", "loss = loss * 2 if # else loss", "loss = (# and loss * 2) or loss" ],
        "g": ["g * 2 if # else g", "None if # else g * 2"],
    },
    "str": {
        "h": [
            "h = getattr(kobai, #)(h)", "h = {'relu': F.relu, 'tanh': kobai.tanh, 'sigmoid': kobai.sigmoid}[#](h)",
            "if # == 'relu': h = h * 2", "match #:\n    case 'relu': h = F.relu(h)\n    case 'tanh': h = kobai.tanh(h)",
        ],
        "loss": ["loss = loss if # == 'relu' else loss * 2", "loss = loss / len(#)", "loss = loss * (1 + #.count('r'))"],
        "g": ["g if # != 'tanh' else g * 2"],
    },
}  # fmt: skip

SITES = {
    # name: (the variable it has, set up around the expression of g where it is a hook)
    "forward": ("h", ""),
    "forward of a layer": ("h", ""),
    "helper of forward": ("h", ""),
    "loss": ("loss", ""),
    "step": ("loss", ""),
    "forward hook": ("g", "_ = model.head.register_forward_hook(lambda m, i, g: %)"),
    "forward pre-hook": ("g", "def @_hook(m, args):\n    g = args[0]\n    return %\n_ = model.head.register_forward_pre_hook(@_hook)"),
    "backward pre-hook": ("g", "def @_hook(m, gs):\n    g = gs[0]\n    return (%,)\n_ = model.head.register_full_backward_pre_hook(@_hook)"),
    "hook of a parameter": ("g", "_ = model.head.weight.register_hook(lambda g: %)"),
    "hook of an activation": ("g", "def @_hook(m, i, o):\n    _ = o.requires_grad and o.register_hook(lambda g: %)\n_ = model.body.register_forward_hook(@_hook)"),
    "hook after accumulation": (
        "g",
        "def @_hook(p):\n    g = p.grad\n    with kobai.no_grad():\n        new = %\n        if new is not None: p.grad.copy_(new)\n"
        "_ = model.head.weight.register_post_accumulate_grad_hook(@_hook)",
    ),
    "hook of the optimizer": (
        "g",
        "def @_hook(o, a, k):\n    g = model.head.bias.detach()\n    with kobai.no_grad():\n        new = %\n"
        "        if new is not None: model.head.bias.copy_(new)\n_ = optimizer.register_step_post_hook(@_hook)",
    ),
}  # fmt: skip

# --- effects ----------------------------------------------------------------------------------------------------------

EFFECTS: dict[str, tuple[str, str, str]] = {
    # name: set up, statement in the step, what is looked at afterwards; @ is the effect's name
    "append to a list": ("@ = []", "@.append(1.5)", "@"),
    "append to the module's list": ("model.@ = []", "model.@.append(len(h) if 'h' in dir() else 0)", "model.@"),
    "append a tensor": ("@ = []", "@.append(here.detach().sum())", "[v.item() for v in @]"),
    "append a tensor to the module's list": ("model.@ = []", "model.@.append(here.detach().mean())", "[v.item() for v in model.@]"),
    "tensor as attribute": ("@ = types.SimpleNamespace(v=None)", "@.v = here.detach().sum()", "@.v if @.v is None else @.v.item()"),
    "tensor as global": ("@ = None\ndef @_f(v):\n    global @\n    @ = v", "@_f(here.detach().sum())", "@ if @ is None else @.item()"),
    "tensor in a dict": ("@ = {}", "@['v'] = here.detach().sum()", "{k: v.item() for k, v in @.items()}"),
    "tensor in a closure": (
        "def @_make():\n    v = None\n    def put(new):\n        nonlocal v\n        v = new\n"
        "    return put, lambda: v\n@_put, @_get = @_make()",
        "@_put(here.detach().sum())", "@_get() if @_get() is None else @_get().item()",
    ),
    "sum of tensors": ("@ = types.SimpleNamespace(v=0.0)", "@.v = @.v + here.detach().sum()", "float(@.v)"),
    "carried state": ("model.@ = [kobai.zeros(())]", "model.@[0] = model.@[0] * 0.5 + here.detach().mean()", "model.@[0].item()"),
    "tensor in place": ("@ = kobai.zeros(())", "_ = @.add_(here.detach().sum())", "@.item()"),
    "counter of the module": ("model.@ = 0", "model.@ += 1", "model.@"),
    "counter of an object": ("@ = types.SimpleNamespace(n=0)", "@.n += 1", "@.n"),
    "counter in a dict": ("@ = {'n': 0}", "@['n'] += 1", "@"),
    "counter in a Counter": ("@ = collections.Counter()", "@['n'] += 1", "dict(@)"),
    "counter of a class": ("class @: n = 0", "@.n += 1", "@.n"),
    "counter of the net's class": ("Net.@ = 0", "Net.@ += 1", "Net.@"),
    "counter in a global": ("@ = 0\ndef @_f():\n    global @\n    @ += 1", "@_f()", "@"),
    "counter in a closure": (
        "def @_make():\n    n = 0\n    def tick():\n        nonlocal n\n        n += 1\n        return n\n"
        "    return tick, lambda: n\n@, @_n = @_make()",
        "_ = @()", "@_n()",
    ),
    "counter in a default": ("def @(held=[0]): held[0] += 1", "@()", "@.__defaults__"),
    "counter of a function": ("def @(): @.n += 1\n@.n = 0", "@()", "@.n"),
    "counter in an array": ("@ = np.zeros(2)", "@[0] += 1", "@.tolist()"),
    "counter in a slot": ("class @_C: __slots__ = ('n',)\n@ = @_C()\n@.n = 0", "@.n += 1", "@.n"),
    "parity": ("model.@ = 0", "model.@ += 1\nif model.@ % 2: here = here * 0.5", "model.@"),
    "parity of a dict": ("@ = {'i': 0}", "@['i'] += 1\nhere = here * (1.0 + @['i'] % 3)", "@"),
    "annealing": ("@ = types.SimpleNamespace(beta=0.0)", "@.beta = min(1.0, @.beta + 0.1)\nhere = here * (1 + @.beta)", "@.beta"),
    "annealing inside": ("@ = types.SimpleNamespace(beta=1.0)", "here = here * @.beta\n@.beta *= 0.5", "@.beta"),
    "iterator": ("@ = itertools.count()", "here = here * (1.0 + 0.1 * next(@))", "@"),
    "cycle": ("@ = itertools.cycle([1.0, 0.5, 0.25])", "here = here * next(@)", "0"),
    "list iterator": ("@ = iter([1.0, 0.5, 0.25] * 9)", "here = here * next(@)", "0"),
    "generator": ("def @_g():\n    v = 1.0\n    while True:\n        v *= 0.9\n        yield v\n@ = @_g()", "here = here * next(@)", "0"),
    "pop": ("@ = [1.0, 0.5] * 20", "here = here * @.pop()", "@"),
    "set": ("@ = set()", "@.add(len(@))", "sorted(@)"),
    "deque": ("@ = collections.deque(maxlen=3)", "@.append(len(@))", "list(@)"),
    "dict grows": ("@ = {}", "@[len(@)] = 1", "@"),
    "setdefault": ("@ = {}", "@.setdefault(len(@), []).append(1)", "@"),
    "print": ("", "print('a step')", "sys.stdout.getvalue()"),
    "print a shape": ("", "print(here.shape)", "sys.stdout.getvalue()"),
    "write": ("@ = io.StringIO()", "_ = @.write('a')", "@.getvalue()"),
    "write to a file": ("@ = open(os.path.join(folder, '@'), 'a')", "_ = @.write('a')\n@.flush()", "os.path.getsize(@.name)"),
    "logging": (
        "@_log = logging.Logger('@')\n@ = []\n@_h = logging.Handler()\n@_h.emit = lambda r: @.append(r.getMessage())\n@_log.addHandler(@_h)",
        "@_log.info('step')", "@",
    ),
    "constant written": ("@ = {'last': None}", "@['last'] = 'train'", "@"),
    "attribute written": ("@ = types.SimpleNamespace(last=None)", "@.last = 'train'", "@.last"),
    "random": ("", "here = here * random.random()", "0"),
    "random, a branch": ("", "if random.random() < 0.5: here = here * 2", "0"),
    "random.Random": ("@ = random.Random(0)", "here = here * @.random()", "0"),
    "random without use": ("", "_ = random.randint(0, 9)", "0"),
    "shuffle": ("@ = [1.0, 0.5, 0.25]", "random.shuffle(@)\nhere = here * @[0]", "@"),
    "numpy.random": ("", "here = here * float(np.random.rand())", "0"),
    "numpy Generator": ("@ = np.random.default_rng(0)", "here = here * float(@.random())", "0"),
    "numpy RandomState": ("@ = np.random.RandomState(0)", "here = here * float(@.rand())", "0"),
    "numpy noise": ("", "here = here + float(np.random.normal()) * 0.1", "0"),
    "kobai.randn": ("", "here = here + kobai.randn(()) * 0.1", "0"),
    "kobai.randn_like": ("", "here = here + kobai.randn_like(here) * 0.1", "0"),
    "kobai.Generator": ("@ = kobai.Generator().manual_seed(1)", "here = here + kobai.rand((), generator=@)", "0"),
    "kobai.randperm": ("", "_ = kobai.randperm(3)", "0"),
    "dropout": ("", "here = F.dropout(here, 0.3)", "0"),
    "noise of the counter": ("", "here = here + F.dropout(kobai.ones(1), 0.5)", "0"),
    "seeded inside": ("", "_ = kobai.manual_seed(3)\nhere = F.dropout(here, 0.3)", "0"),
    "schedule by hand": ("", "for _g in optimizer.param_groups: _g['lr'] *= 0.9", "0"),
    "schedule by hand, counted": ("@ = [0]", "@[0] += 1\noptimizer.param_groups[0]['lr'] = 0.1 / @[0]", "@"),
    "momentum by hand": ("", "optimizer.param_groups[0]['weight_decay'] = min(0.1, optimizer.param_groups[0]['weight_decay'] + 0.01)", "0"),
    "count of the optimizer": ("", "here = here * (1.0 + len(optimizer.state.get(model.head.weight, {})) * 0.5)", "0"),
    "mode switched inside": ("", "_ = model.train()", "0"),
    "evaluation inside": ("", "_ = model.head.eval()\n_ = model.head.train()", "0"),
    "frozen inside": ("", "_ = model.head.weight.requires_grad_(False)", "0"),
    "frozen and thawed inside": ("", "_ = model.head.bias.requires_grad_(False)\nmodel.head.bias.requires_grad = True", "0"),
    "hook added inside": ("", "_ = model.head.bias.register_hook(lambda g: g * 0.5)", "0"),
    "hook added and removed inside": ("", "_h = model.head.bias.register_hook(lambda g: g * 0.5)\n_h.remove()", "0"),
    "hook that counts": ("@ = []\n_ = model.head.register_forward_hook(lambda m, i, o: @.append(1))", "", "@"),
    "hook that keeps": (
        "@ = {}\ndef @_h(m, i, o): @['o'] = o.detach()\n_ = model.head.register_forward_hook(@_h)", "",
        "{k: v.numpy().tobytes() for k, v in @.items()}",
    ),
    "gradient hook that keeps": (
        "@ = []\ndef @_h(g): @.append(g.clone())\n_ = model.head.bias.register_hook(@_h)", "", "[v.numpy().tobytes() for v in @]",
    ),
    "hook of the optimizer that counts": ("@ = []\n_ = optimizer.register_step_post_hook(lambda *a: @.append(1))", "", "@"),
    "hook of the optimizer that writes": (
        "def @(o, a, k):\n    with kobai.no_grad(): _ = model.head.bias.clamp_(-0.1, 0.1)\n_ = optimizer.register_step_post_hook(@)",
        "", "0",
    ),
    "item": ("", "here = here * (1.0 + here.detach().sum().item())", "0"),
    "if": ("", "if here.detach().sum() > 0: here = here * 0.5", "0"),
    "nan check": ("", "assert not kobai.isnan(here).any()", "0"),
    "numpy inside": ("", "here = here + float(here.detach().numpy().sum())", "0"),
    "tensor made inside": ("", "here = here * kobai.tensor([0.5])", "0"),
    "table made inside": ("", "here = here + kobai.tensor([0.5, 0.25]).sum()", "0"),
    "numpy table": ("@ = np.array([0.5, 0.25], 'f')", "here = here + kobai.from_numpy(@).sum()", "0"),
    "parameters in place": ("", "with kobai.no_grad():\n    _ = model.head.weight.mul_(0.99)", "0"),
    "average of weights": (
        "@ = [p.detach().clone() for p in model.parameters()]",
        "with kobai.no_grad():\n    for a, p in zip(@, model.parameters()): _ = a.mul_(0.9).add_(p.detach() * 0.1)",
        "[a.numpy().tobytes() for a in @]",
    ),
    "buffer bound anew": ("model.register_buffer('@', kobai.zeros(()))", "model.@ = model.@ + here.detach().mean()", "model.@.item()"),
    "buffer in place": ("model.register_buffer('@', kobai.zeros(()))", "_ = model.@.add_(here.detach().mean())", "model.@.item()"),
    "parameter bound anew": ("", "model.head.bias = nn.Parameter(model.head.bias.detach() * 0.9)", "0"),
    "data bound anew": ("", "model.head.bias.data = model.head.bias.data * 0.9", "0"),
    "no_grad block": ("", "with kobai.no_grad():\n    _m = here.mean()\nhere = here - _m", "0"),
    "exception inside": ("", "try: raise KeyError('x')\nexcept KeyError: here = here * 0.5", "0"),
    "context manager": (
        "@ = []\n§contextlib.contextmanager\ndef @_c():\n    @.append(1)\n    yield\n    @.append(2)", "with @_c(): here = here * 0.5", "@",
    ),
    "retained gradient": ("@ = []", "if here.requires_grad: here.retain_grad()", "0"),
    "module made inside": ("", "_l = nn.Identity()\nhere = _l(here)", "0"),
    "module attribute created": ("", "model.@ = 3", "model.__dict__.get('@')"),
    "attribute deleted": ("@ = types.SimpleNamespace()", "@.v = 1\ndel @.v", "vars(@)"),
    "clock": ("", "ticks.append(time.perf_counter_ns())", "len(set(ticks)) == len(ticks) and len(ticks)"),
    "clock returned": ("", "box = [time.time_ns()]\nhere = here * (1.0 if box[0] > 0 else 2.0)", "0"),
}  # fmt: skip
"""``here`` is ``h`` in forward and ``loss`` in the loss and the step."""

# --- programs ---------------------------------------------------------------------------------------------------------

BODIES: dict[str, list[str]] = {
    "linear": ["nn.Linear(6, 5)"],
    "mlp": ["nn.Linear(6, 5)", "nn.ReLU()", "nn.Linear(5, 5)"],
    "batch norm": ["nn.Linear(6, 5)", "nn.BatchNorm1d(5)", "nn.ReLU()"],
    "layer norm": ["nn.Linear(6, 5)", "nn.LayerNorm(5)", "nn.GELU()"],
    "dropout": ["nn.Linear(6, 5)", "nn.LeakyReLU(0.1)", "nn.Dropout(0.3)"],
    "everything": ["nn.Linear(6, 5)", "nn.BatchNorm1d(5)", "nn.ELU()", "nn.Dropout(0.2)", "nn.Linear(5, 5)"],
    "conv": ["nn.Unflatten(1, (1, 2, 3))", "nn.Conv2d(1, 2, 2)", "nn.BatchNorm2d(2)", "nn.Flatten()", "nn.Linear(4, 5)"],
    "conv 1d": ["nn.Unflatten(1, (2, 3))", "nn.Conv1d(2, 5, 2)", "nn.ReLU()", "nn.AdaptiveAvgPool1d(1)", "nn.Flatten()"],
    "embedding": ["Tokens()"],
    "recurrent": ["Recurrent()"],
    "tied": ["nn.Linear(6, 6)", "nn.Tanh()", "Again()", "nn.Linear(6, 5)"],
    "branches": ["Branches()"],
    "weight norm": ["nn.utils.weight_norm(nn.Linear(6, 5))", "nn.Softplus()"],
}  # fmt: skip

OWN_LAYERS = {
    "Tokens()": """
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 5)
    def forward(self, x):
        return self.table((x.abs() * 3).long().clamp(0, 7)).mean(1)
""",
    "Recurrent()": """
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 5, batch_first=True)
    def forward(self, x):
        return self.cell(x.reshape(-1, 2, 3))[0][:, -1]
""",
    "Again()": """
class Again(nn.Module):
    def forward(self, x):
        return F.linear(x, model.body[0].weight.t(), None)
""",
    "Branches()": """
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)
        self.use, self.depth, self.names = True, 1, ["relu"]
    def forward(self, x):
        y = self.left(x)
        if self.use:
            y = y + self.right(x)
        for _ in range(self.depth):
            for name in self.names:
                y = getattr(F, name)(y)
        return y
""",
}

OPTIMIZERS = [
    "kobai.optim.SGD(model.parameters(), lr=0.1)",
    "kobai.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
    "kobai.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01, nesterov=True)",
    "kobai.optim.SGD([{'params': model.body.parameters()}, {'params': model.head.parameters(), 'lr': 0.01}], lr=0.1)",
    "kobai.optim.Adam(model.parameters(), lr=0.02)",
    "kobai.optim.AdamW(model.parameters(), lr=0.02)",
    "kobai.optim.RMSprop(model.parameters(), lr=0.01)",
    "kobai.optim.Adagrad(model.parameters(), lr=0.05)",
]
SCHEDULES = [
    "",
    "lr_scheduler.StepLR(optimizer, 2, gamma=0.5)",
    "lr_scheduler.CosineAnnealingLR(optimizer, 8)",
    "lr_scheduler.LambdaLR(optimizer, lambda i: 1 / (1 + i))",
]
LOSSES = {
    "function": "def criterion(out, t):\n    loss = F.cross_entropy(out, t)\n    %\n    return loss",
    "library": "criterion = F.cross_entropy",
    "library's object": "criterion = nn.CrossEntropyLoss()",
    "partial": "criterion = functools.partial(F.cross_entropy, label_smoothing=0.1)",
    "lambda": "criterion = lambda out, t: F.cross_entropy(out, t)",
    "object": (
        "class Criterion:\n    def __call__(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriterion = Criterion()"
    ),
    "module": (
        "class Criterion(nn.Module):\n    def forward(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriterion = Criterion()"
    ),
    "method": (
        "class Criteria:\n    def loss(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriteria = Criteria()\ncriterion = criteria.loss"
    ),
    "closure": (
        "def make_criterion():\n    base = nn.CrossEntropyLoss()\n    def criterion(out, t):\n        loss = base(out, t)\n"
        "        %\n        return loss\n    return criterion\ncriterion = make_criterion()"
    ),
}
DRIVERS = ["capture", "method", "resets outside", "accumulates", "two steps", "trainer", "fit"]


@dataclass(frozen=True)
class Knob:
    name: str
    kind: str
    place: str
    reader: str
    site: str
    use: str
    values: tuple[Any, ...]

    @property
    def texts(self) -> tuple[str, str, str]:
        return NUMBERS[self.place] if self.place in NUMBERS else PLACES[self.place]

    def fill(self, text: str, value: Any = None) -> str:
        return named(text, self.name).replace("$", repr(value))

    @property
    def expression(self) -> str:
        return self.fill(READERS[self.reader][1].replace("%", self.texts[1]))

    @property
    def first(self) -> str:
        made = self.fill(self.texts[0], self.values[0])
        reader = self.fill(READERS[self.reader][0].replace("%", self.texts[1]))
        return f"{self.name}_all = {VALUES[self.kind]!r}\n{made}\n{reader}\n"

    def change(self, i: int) -> str:
        return self.fill(self.texts[2], self.values[i % len(self.values)])


@dataclass(frozen=True)
class Effect:
    name: str
    what: str
    site: str


@dataclass(frozen=True)
class Spec:
    """A program. The defaults are the plainest one."""

    body: str = "linear"
    loss: str = "function"
    optimizer: str = OPTIMIZERS[0]
    schedule: str = ""
    clip: float | None = None
    driver: str = "capture"
    knobs: tuple[Knob, ...] = ()
    effects: tuple[Effect, ...] = ()

    @property
    def trains_itself(self) -> bool:
        return self.driver in ("trainer", "fit")


def named(text: str, name: str) -> str:
    """``text`` with ``name`` for @ and @ for §."""
    return text.replace("@", name).replace("§", "@")


def indented(text: str, columns: int) -> str:
    return text.replace("\n", "\n" + " " * columns)


def text_of(spec: Spec) -> str:
    """The program, for :mod:`capture_fuzz`'s namespace; ``wrap`` in it captures, or does nothing."""
    before: list[str] = []
    at: dict[str, list[str]] = {
        "forward": [],
        "forward of a layer": [],
        "helper of forward": [],
        "loss": [],
        "step": [],
    }
    after: list[str] = []
    body_of_loss = "%" in LOSSES[spec.loss]

    def place(site: str) -> str:
        if site == "loss" and not body_of_loss:
            site = "step"
        return "forward" if site == "step" and spec.trains_itself else site

    for knob in spec.knobs:
        after.append(knob.first)
        site = place(knob.site)
        use = USES[knob.kind][knob.use.partition(" ")[0]][int(knob.use.partition(" ")[2])]
        if site != knob.site and SITES[site][0] != SITES[knob.site][0]:
            use = use.replace("loss", "h").replace("out", "h")
        use = use.replace("#", knob.expression)
        if site in at:
            at[site].append(use)
        else:
            after.append(knob.fill(SITES[site][1].replace("%", use)))
    for effect in spec.effects:
        setup, statement, _ = EFFECTS[effect.what]
        after.append(named(setup, effect.name))
        site = place(effect.site)
        at[site].append(f"here = {SITES[site][0]}\n{statement.replace('@', effect.name)}\n{SITES[site][0]} = here")
    layers = BODIES[spec.body]
    before += [OWN_LAYERS[layer].strip() for layer in layers if layer in OWN_LAYERS]
    lines = {site: "\n".join(statements) or "pass" for site, statements in at.items()}
    before.append(f"""
class Own(nn.Module):
    def forward(self, h):
        {indented(lines["forward of a layer"], 8)}
        return h
def helper(h):
    {indented(lines["helper of forward"], 4)}
    return h
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential({", ".join(layers)})
        self.own = Own()
        self.head = nn.Linear(5, 3)
        self.act = F.relu
    def forward(self, x):
        h = self.act(self.body(x))
        h = helper(self.own(h))
        {indented(lines["forward"], 8)}
        return self.head(h)
model = Net()
""".strip())  # fmt: skip
    loss = LOSSES[spec.loss]
    columns = len(loss[: loss.find("%")]) - loss.rfind("\n", 0, loss.find("%")) - 1 if body_of_loss else 0
    before.append(loss.replace("%", indented(lines["loss"], columns)))
    before.append(f"optimizer = {spec.optimizer}")
    before.append(f"schedule = {spec.schedule or None}")
    before.append(f"clip = {spec.clip}")
    return "\n".join([*before, *after, _driver(spec, lines["step"])]) + "\n"


def _driver(spec: Spec, lines: str) -> str:
    if spec.trains_itself:
        return (
            "trainer = Trainer(model, optimizer, criterion, scheduler=schedule, scheduler_interval='batch',\n"
            f"    clip_grad_norm=clip, capture=CAPTURED, verify_capture=VERIFY, terminate_on_non_finite=False{WATCHER if spec.driver == 'fit' else ''})\n"
            "def call(x, t): return trainer.train_step((x, t))"
        )
    self, indent = ("self, ", 4) if spec.driver == "method" else ("", 0)
    reset = {"resets outside": "pass", "accumulates": "pass"}.get(spec.driver, "optimizer.zero_grad()")
    update = "pass" if spec.driver == "accumulates" else "optimizer.step()"
    step = f"""
def step({self}x, t):
    {reset}
    out = model(x)
    loss = criterion(out, t)
    {indented(lines, 4)}
    loss.backward()
    if clip is not None: nn.utils.clip_grad_norm_(model.parameters(), clip)
    {update}
    if schedule is not None: schedule.step()
    return loss
""".strip()
    if spec.driver == "method":
        return f"class Loop:\n    {indented(step, indent)}\nloop = Loop()\ncall = wrap(loop.step)"
    if spec.driver == "resets outside":
        return f"{step}\ncaptured = wrap(step)\ndef call(x, t):\n    optimizer.zero_grad()\n    return captured(x, t)"
    if spec.driver == "accumulates":
        return (
            f"{step}\ncaptured = wrap(step)\ndone = 0\ndef call(x, t):\n    global done\n    done += 1\n"
            "    loss = captured(x, t)\n    if done % 2 == 0:\n        optimizer.step()\n        optimizer.zero_grad()\n    return loss"
        )
    if spec.driver == "two steps":
        return (
            f"{step}\ntrain = wrap(step)\n@kobai.no_grad()\ndef evaluate(x):\n    return model(x).sum()\nevaluate = wrap(evaluate)\n"
            "def call(x, t):\n    loss = train(x, t)\n    mode = model.training\n    model.eval()\n    score = evaluate(x)\n"
            "    model.train(mode)\n    return kobai.stack([loss.detach(), score.detach()])"
        )
    return f"{step}\ncall = wrap(step)"


WATCHER = ", callbacks=[watcher]"

# --- changes ----------------------------------------------------------------------------------------------------------

HOOKS = {
    "register_forward_hook": "lambda m, i, o: o * {v}",
    "register_forward_pre_hook": "lambda m, i: (i[0] * {v},)",
    "register_full_backward_pre_hook": "lambda m, g: (g[0] * {v},)",
    "register_full_backward_hook": "lambda m, i, o: tuple(g if g is None else g * {v} for g in i)",
}


def _parameter(spec: Spec, rng: random.Random) -> str:
    named = ["model.head.weight", "model.head.bias"]
    for i, layer in enumerate(BODIES[spec.body]):
        if layer.startswith(("nn.Linear", "nn.Conv", "nn.BatchNorm", "nn.LayerNorm")):
            named += [f"model.body[{i}].weight", f"model.body[{i}].bias"]
    named += {"embedding": ["model.body[0].table.weight"], "branches": ["model.body[0].left.weight"]}.get(spec.body, [])
    return rng.choice(named)


def _module(spec: Spec, rng: random.Random) -> str:
    return rng.choice(["model", "model.head", "model.body", "model.body[0]", "model.own"])


def _layer(spec: Spec, rng: random.Random, *kinds: str) -> str | None:
    found = [f"model.body[{i}]" for i, layer in enumerate(BODIES[spec.body]) if layer.startswith(kinds)]
    return rng.choice(found) if found else None


def _freeze(spec: Spec, rng: random.Random) -> str:
    p, m, new = _parameter(spec, rng), _module(spec, rng), rng.choice(["True", "False", "False"])
    return rng.choice(
        [
            f"{p}.requires_grad_({new})",
            f"{p}.requires_grad = {new}",
            f"{m}.requires_grad_({new})",
            f"for p in {m}.parameters(): p.requires_grad = not p.requires_grad",
            f"for n, p in model.named_parameters(): p.requires_grad_(n.endswith({rng.choice(['weight', 'bias'])!r}))",
            f"model.requires_grad_({new}); model.head.requires_grad_(True)",
        ]
    )


def _hook(spec: Spec, rng: random.Random) -> str:
    kind = rng.choice([*HOOKS, "register_hook", "register_post_accumulate_grad_hook"])
    v = rng.choice([0.5, 2.0, 0.0])
    if kind == "register_hook":
        return f"handles.append({_parameter(spec, rng)}.register_hook(lambda g: g * {v}))"
    if kind == "register_post_accumulate_grad_hook":
        return f"handles.append({_parameter(spec, rng)}.{kind}(lambda p: p.grad.mul_({v})))"
    return f"handles.append({_module(spec, rng)}.{kind}({HOOKS[kind].format(v=v)}))"


def _unhook(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "if handles: handles.pop().remove()",
            "while handles: handles.pop().remove()",
            "if handles: handles.pop(0).remove()",
            "model.head._forward_hooks.clear()",
        ]
    )


def _rehook(spec: Spec, rng: random.Random) -> str:
    return _unhook(spec, rng) + "\n" + _hook(spec, rng)


def _hyper(spec: Spec, rng: random.Random) -> str:
    group = "optimizer.param_groups[0]"
    return rng.choice(
        [
            f"{group}['lr'] = {rng.choice([0.01, 0.03, 0.0])}",
            f"for g in optimizer.param_groups: g['lr'] *= {rng.choice([0.1, 0.5])}",
            f"{group}['weight_decay'] = {rng.choice([0.0, 0.1])}",
            f"if 'momentum' in {group}: {group}['momentum'] = {rng.choice([0.0, 0.5, 0.9])}",
            f"if 'nesterov' in {group} and {group}['momentum']: {group}['nesterov'] = not {group}['nesterov']",
            f"if 'dampening' in {group} and not {group}['nesterov']: {group}['dampening'] = 0.5",
            f"if 'betas' in {group}: {group}['betas'] = (0.5, 0.9)",
            f"if 'eps' in {group}: {group}['eps'] = 0.1",
            f"if 'alpha' in {group}: {group}['alpha'] = 0.5",
            f"if 'amsgrad' in {group}: {group}['amsgrad'] = True; optimizer.state.clear()",
            f"{group}['maximize'] = not {group}['maximize']",
        ]
    )


def _groups(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "extra = nn.Linear(5, 5); model.body.append(extra); optimizer.add_param_group({'params': extra.parameters(), 'lr': 0.05})",
            "optimizer.param_groups[0]['params'].pop()",
            "optimizer.param_groups[-1]['params'].reverse()",
            "optimizer.param_groups[-1]['params'] = optimizer.param_groups[-1]['params'][:1]",
            "optimizer.state.clear()",
            "optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))",
            "for s in optimizer.state.values():\n    for n, v in s.items():\n        if isinstance(v, kobai.Tensor): v.mul_(0.5)",
            "for s in optimizer.state.values():\n    for n, v in list(s.items()):\n        if isinstance(v, kobai.Tensor): s[n] = v * 0.5",
            "for s in optimizer.state.values():\n    if 'step' in s: s['step'] = 1",
        ]
    )


def _optimizer(spec: Spec, rng: random.Random) -> str:
    new = rng.choice(OPTIMIZERS)
    return f"optimizer = {new}" + ("\ntrainer.optimizer = optimizer" if spec.trains_itself else "")


def _handle_of(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "handles.append(optimizer.register_step_pre_hook(lambda o, a, k: [p.grad.mul_(0.5) for p in o.param_groups[0]['params'] if p.grad is not None] and None))",
            "handles.append(optimizer.register_step_post_hook(lambda o, a, k: [p.data.mul_(0.9) for p in o.param_groups[0]['params']] and None))",
        ]
    )


def _clip(spec: Spec, rng: random.Random) -> str:
    value = rng.choice([0.1, 0.5, 1.0, None])
    return f"trainer.clip_grad_norm = {value}" if spec.trains_itself else f"clip = {value}"


def _attribute(spec: Spec, rng: random.Random) -> str | None:
    choices = []
    for start, texts in {
        "nn.Dropout": ["{}.p = 0.6", "{}.p = 0.0"],
        "nn.BatchNorm": ["{}.momentum = 0.5", "{}.eps = 0.1", "{}.momentum = None", "{}.track_running_stats = False"],
        "nn.LayerNorm": ["{}.eps = 0.1"],
        "nn.LeakyReLU": ["{}.negative_slope = 0.5"],
        "nn.ELU": ["{}.alpha = 0.5"],
        "nn.GELU": ["{}.approximate = 'tanh'"],
        "nn.Softplus": ["{}.beta = 2.0"],
        "Branches": ["{}.use = not {}.use", "{}.depth = 2", "{}.names.append('tanh')", "{}.names[0] = 'gelu'"],
    }.items():
        layer = _layer(spec, rng, start)
        choices += [text.replace("{}", layer) for text in texts] if layer else []
    if spec.loss == "library's object":
        choices += ["criterion.label_smoothing = 0.2", "criterion.reduction = 'sum'"]
    if spec.loss == "partial":
        choices += ["criterion.keywords['label_smoothing'] = 0.3"]
    return rng.choice(choices) if choices else None


def _mode(spec: Spec, rng: random.Random) -> str:
    m = _module(spec, rng)
    return rng.choice([f"{m}.eval()", f"{m}.train()", f"{m}.train(not {m}.training)", f"{m}.training = False"])


def _replace_parameter(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"{p} = nn.Parameter({p}.detach() * 0.5)",
            f"{p}.data = {p}.data * 0.5",
            f"{p}.data = {p}.detach().clone()",
            f"{p} = {p}",
            "model.head.bias = None",
            f"{p} = nn.Parameter({p}.detach().clone(), requires_grad=False)",
            f"del {p.replace('weight', 'bias')}\n{p.replace('weight', 'bias')} = None" if "table" not in p else "pass",
        ]
    )


def _replace_module(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.head = nn.Linear(5, 3)",
            "model.head = copy.deepcopy(model.head)",
            "model.body.append(nn.Tanh())",
            "model.body.append(nn.Linear(5, 5))",
            "model.body[0] = copy.deepcopy(model.body[0])",
            "model.own = nn.Tanh()",
            "model.own = nn.Linear(5, 5)",
            "model.own = nn.Sequential(model.own, nn.Sigmoid())",
            "model._modules['own'] = nn.Tanh()",
            "model.body = nn.Sequential(*model.body, nn.Softplus())",
            "model.own = nn.Identity()",
        ]
    )


def _activation(spec: Spec, rng: random.Random) -> str:
    return "model.act = " + rng.choice(
        [
            "kobai.tanh",
            "F.gelu",
            "nn.Tanh()",
            "lambda h: h * 0.5",
            "F.relu",
            "functools.partial(F.leaky_relu, negative_slope=0.3)",
        ]
    )


def _gradients(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"{p}.grad = None",
            "model.zero_grad()",
            "optimizer.zero_grad(set_to_none=False)",
            "model.zero_grad(set_to_none=False)",
            f"if {p}.grad is not None: {p}.grad.zero_()",
            f"if {p}.grad is not None: {p}.grad.mul_(3.0)",
            f"{p}.grad = kobai.ones_like({p})",
            f"if {p}.grad is not None: {p}.grad = {p}.grad.clone()",
        ]
    )


def _write(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"with kobai.no_grad(): {p}.mul_(0.5)",
            f"nn.init.ones_({p})",
            f"nn.init.normal_({p}, std=0.1)",
            f"{p}.data.add_(0.1)",
            f"with kobai.no_grad(): {p}[0] = 0.5",
            f"with kobai.no_grad(): {p}.copy_(kobai.ones_like({p}))",
            f"{p}.detach().numpy()[...] *= 0.5",
        ]
    )


def _load(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.load_state_dict({k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()})",
            "model.load_state_dict({k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()}, assign=True)",
            "kept.update({k: v.clone() for k, v in model.state_dict().items()})",
            "if kept: model.load_state_dict(kept, strict=False)",
            "model.load_state_dict(copy.deepcopy(model).state_dict())",
        ]
    )


def _buffers(spec: Spec, rng: random.Random) -> str | None:
    layer = _layer(spec, rng, "nn.BatchNorm")
    if layer is None:
        return None
    return rng.choice(
        [
            f"{layer}.running_mean = kobai.ones_like({layer}.running_mean)",
            f"{layer}.running_var.fill_(2.0)",
            f"{layer}.reset_running_stats()",
            f"{layer}._buffers['running_mean'] = {layer}.running_mean * 0.5",
            f"{layer}.num_batches_tracked.zero_()",
            f"{layer}.running_mean.data = {layer}.running_mean * 2",
        ]
    )


def _patch(spec: Spec, rng: random.Random) -> str:
    v = rng.choice([0.5, 2.0])
    choices = [
        f"old_forward = model.forward\nmodel.forward = lambda x: old_forward(x) * {v}",
        f"class_forward = Net.forward\nNet.forward = lambda self, x, f=class_forward: f(self, x) * {v}",
        f"model.own.forward = lambda h: h * {v}",
        f"Own.forward = lambda self, h: h * {v}",
        f"old_helper = helper\ndef helper(h): return old_helper(h) * {v}",
        f"Own.__call__ = lambda self, h: h * {v}",
        f"model.__class__ = type('Net2', (Net,), {{'forward': lambda self, x: Net.forward(self, x) * {v}}})",
        f"head_forward = model.head.forward\nmodel.head.forward = lambda h: head_forward(h) * {v}",
        f"helper.__code__ = (lambda h: h * {v}).__code__",
        f"kept_step = optimizer.step\noptimizer.step = lambda: [p.data.mul_({v}) for p in model.parameters()] and kept_step()",
        f"Net.extra = property(lambda self: {v})",
    ]
    if spec.loss in ("object", "module", "method"):
        name, method = {
            "object": ("Criterion", "__call__"),
            "module": ("Criterion", "forward"),
            "method": ("Criteria", "loss"),
        }[spec.loss]
        choices.append(
            f"old_loss = {name}.{method}\n{name}.{method} = lambda self, out, t: old_loss(self, out, t) * {v}"
        )
    return rng.choice(choices)


def _rebind(spec: Spec, rng: random.Random) -> str:
    after = "\ntrainer.model = model" if spec.trains_itself else ""
    loss = "\ntrainer.loss_fn = criterion" if spec.trains_itself else ""
    return rng.choice(
        [
            "model = copy.deepcopy(model)" + after,
            "model = Net()" + after,
            "criterion = nn.CrossEntropyLoss(label_smoothing=0.2)" + loss,
            "criterion = lambda out, t: F.cross_entropy(out, t) * 0.5" + loss,
            "old_criterion = criterion\ncriterion = lambda out, t, c=old_criterion: c(out, t) * 0.5" + loss,
            "criterion = functools.partial(F.cross_entropy, label_smoothing=0.2)" + loss,
        ]
    )


def _tie(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.own = nn.Linear(5, 3, bias=False); model.own.weight = model.head.weight; model.own.forward = lambda h: h @ (model.own.weight.t() @ model.own.weight)",
            "nn.utils.weight_norm(model.head)",
            "if hasattr(model.head, 'weight_g'): nn.utils.remove_weight_norm(model.head)",
        ]
    )


def _random_state(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "kobai.manual_seed(7)",
            "saved = kobai.get_rng_state()\nkobai.set_rng_state(saved)",
            "kobai.rand(3)",
            "random.seed(5); np.random.seed(5)",
            "F.dropout(kobai.ones(9), 0.5)",
        ]
    )


def _schedule(spec: Spec, rng: random.Random) -> str | None:
    if not spec.schedule:
        return None
    new = f"schedule = {rng.choice(SCHEDULES[1:])}" + ("\ntrainer.scheduler = schedule" if spec.trains_itself else "")
    texts = ["schedule.step()", new]
    if "StepLR" in spec.schedule:
        texts += ["schedule.gamma = 0.9", "schedule.step_size = 1"]
    if "LambdaLR" in spec.schedule:
        texts += ["schedule.lr_lambdas = [lambda i: 0.5] * len(optimizer.param_groups)"]
    return rng.choice(texts)


def _modes_of_kobai(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "kobai.set_default_dtype(kobai.float64)",
            "kobai.set_default_dtype(kobai.float32)",
            "kobai.autograd.set_detect_anomaly(True)",
            "kobai.autograd.set_detect_anomaly(False)",
            "model.double()",
            "model.float()",
        ]
    )


def _keep(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"held.append({p}.detach())",
            f"held.append({p}.detach().clone())",
            f"held.append({p}.detach()[0])",
            "held.extend(model.state_dict().values())",
        ]
    )


CHANGES: dict[str, Callable[[Spec, random.Random], str | None]] = {
    "freeze": _freeze, "hook": _hook, "unhook": _unhook, "rehook": _rehook, "hyper-parameter": _hyper, "groups": _groups,
    "optimizer": _optimizer, "optimizer hook": _handle_of, "clip": _clip, "attribute of a layer": _attribute, "mode": _mode,
    "parameter replaced": _replace_parameter, "module replaced": _replace_module, "activation": _activation,
    "gradients": _gradients, "write": _write, "load": _load, "buffers": _buffers, "patch": _patch, "rebind": _rebind,
    "tie": _tie, "random state": _random_state, "schedule": _schedule, "settings": _modes_of_kobai, "keep": _keep,
}  # fmt: skip
"""By kind: the text of a change that fits the program, None where none does."""


# --- drawing ----------------------------------------------------------------------------------------------------------

ALL_PLACES = [*PLACES, *NUMBERS]
ALL_EFFECTS = [*EFFECTS]
ALL_CHANGES = [*CHANGES]


KNOBS = 97
"""A change of knob k to its i-th value has the seed k + KNOBS * i."""


@dataclass(frozen=True)
class Change:
    call: int
    kind: str  # of CHANGES, or "knob"
    seed: int


@dataclass(frozen=True)
class Sequence:
    """A program, the batches it is called with, and what changes before which call."""

    seed: int
    spec: Spec
    batches: tuple[tuple[int, int], ...]  # (rows, which)
    changes: tuple[Change, ...]

    def text_of(self, change: Change) -> str:
        rng = random.Random(change.seed)
        if change.kind == "knob":
            i = change.seed % KNOBS
            knob = next((k for k in self.spec.knobs if k.name == f"k{i}"), None)
            return "pass" if knob is None else knob.change(change.seed // KNOBS)
        return CHANGES[change.kind](self.spec, rng) or "pass"

    @property
    def kinds(self) -> set[str]:
        """What happens in it: kinds of changes, places that change, effects."""
        changed = {f"k{change.seed % KNOBS}" for change in self.changes if change.kind == "knob"}
        found = {change.kind for change in self.changes if change.kind != "knob"}
        found |= {f"place: {knob.place}" for knob in self.spec.knobs if knob.name in changed}
        return found | {f"effect: {effect.what}" for effect in self.spec.effects}


def _draw_knob(rng: random.Random, i: int, turn: int | None = None) -> Knob:
    place = rng.choice(ALL_PLACES) if turn is None else ALL_PLACES[turn % len(ALL_PLACES)]
    kind = "float" if place in NUMBERS else rng.choice(["float", "float", "int", "bool", "str"])
    site = rng.choice([*SITES])
    variable = SITES[site][0]
    use = f"{variable} {rng.randrange(len(USES[kind][variable]))}"
    reader = rng.choice([*READERS]) if rng.random() < 0.5 else "inline"
    values = rng.sample(VALUES[kind], 2)
    return Knob(f"k{i}", kind, place, reader, site, use, tuple(values))


def draw(seed: int) -> Sequence:
    """The sequence with this number: the same in every process."""
    rng = random.Random(seed)
    pick = rng.choice
    # Half the sequences have one thing alone, in a plain net, by which a fault is named; all have their turn.
    alone = ["", "change", "", "knob", "", "knob", "", "effect"][seed % 8]
    turn = seed // 8
    if alone == "knob":
        knobs: tuple[Knob, ...] = (_draw_knob(rng, 0, 2 * turn + (seed % 8 == 5)),)
    else:
        knobs = () if alone else tuple(_draw_knob(rng, i) for i in range(pick([0, 1, 1, 2])))
    effects: tuple[Effect, ...] = ()
    if alone == "effect" or (not alone and rng.random() < 0.25):
        what = ALL_EFFECTS[turn % len(ALL_EFFECTS)] if alone else pick(ALL_EFFECTS)
        effects = (Effect("e0", what, pick([site for site, (variable, _) in SITES.items() if variable != "g"])),)
    spec = Spec(
        body="mlp" if alone else pick([*BODIES]),
        loss=pick([*LOSSES]),
        optimizer=pick(OPTIMIZERS),
        schedule=pick(SCHEDULES) if rng.random() < 0.4 else "",
        clip=pick([0.5, 1.0]) if rng.random() < 0.3 else None,
        driver=pick(DRIVERS) if rng.random() < 0.6 else "capture",
        knobs=knobs,
        effects=effects,
    )
    calls = rng.randint(7, 11)
    rows = pick([3, 4, 6])
    short = rng.random() < 0.25
    batches = tuple((2 if short and rng.random() < 0.3 else rows, rng.randrange(4)) for _ in range(calls))
    changes: list[Change] = []
    for _ in range(0 if alone == "effect" else 1 if alone else rng.randint(1, 4)):
        call = rng.randint(1, calls - 2) if rng.random() < 0.3 else rng.randint(3, calls - 2)
        if knobs and (alone or rng.random() < 0.5):
            which = rng.randrange(len(knobs))
            changes.append(Change(call, "knob", which + KNOBS))
            if rng.random() < 0.4:  # and back
                changes.append(Change(rng.randint(call + 1, calls - 1), "knob", which + 2 * KNOBS))
        else:
            kind = ALL_CHANGES[turn % len(ALL_CHANGES)] if alone else pick(ALL_CHANGES)
            changes.append(Change(call, kind, rng.randrange(10**9)))
    changes.sort(key=lambda change: change.call)
    return Sequence(seed, spec, batches, tuple(changes))
