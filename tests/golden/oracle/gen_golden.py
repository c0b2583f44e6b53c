"""Writes the golden IO files and manifest.json one folder up (needs the weight files of tiny_models.py there)."""
import json, os, sys
import torch
from safetensors.torch import save_file, load_file
import oracle as O
from recipes import ALL
from tiny_models import G

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def rel(a, b):
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


man = {}
for name, r in ALL.items():
    inp = r.inputs()
    out = {k: v.contiguous() for k, v in r.outputs(inp).items()}
    o64 = r.outputs(inp, torch.float64) if name != "schedules" else out
    man[name] = {"meta": r.meta, "tensors": {}}
    for k, v in out.items():
        floor = 0.0 if not v.is_floating_point() or name == "schedules" else rel(v, o64[k])
        man[name]["tensors"]["out." + k] = {"shape": list(v.shape), "dtype": str(v.dtype)[6:],
                                            "absmax": round(float(v.double().abs().max()), 6), "f32_vs_f64": float(f"{floor:.2e}")}
    for k, v in inp.items():
        man[name]["tensors"]["in." + k] = {"shape": list(v.shape), "dtype": str(v.dtype)[6:]}
    blob = {**{"in." + k: v.contiguous() for k, v in inp.items()}, **{"out." + k: v.clone() for k, v in out.items()}}
    save_file(blob, f"{G}/{name}.safetensors", metadata={"meta": json.dumps(r.meta)})
    worst = max(man[name]["tensors"].items(), key=lambda kv: kv[1].get("f32_vs_f64", 0))
    print(f"{name:12s} {os.path.getsize(f'{G}/{name}.safetensors'):8d} B  {len(out)} outputs, worst f32-vs-f64 {worst[1].get('f32_vs_f64')} ({worst[0]})", flush=True)
json.dump(man, open(f"{G}/manifest.json", "w"), indent=1)
