"""Where a step of a random program can read a Python value, how it fetches it, and what it does with it, as text."""

# ruff: noqa: E501 - lines of programs are as long as they are

from __future__ import annotations

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
