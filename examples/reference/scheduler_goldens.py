"""Makes the goldens of samplers in `tests/goldens/schedulers`: diffusers' own schedulers, step by step, on seeded numbers in float64.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy
    venv/bin/python examples/reference/scheduler_goldens.py            # makes them
    venv/bin/python examples/reference/scheduler_goldens.py --report   # writes nothing: prints how far the class as released is, in float32

A golden is a JSON file: `config`, which is what the class writes as its `scheduler_config.json`; `cases`, each with the number of steps, `mu` or null,
`given` (whether a pipeline passes the noise levels from 1 to 1/steps, as LTX-Video's does), the `sigmas` and `timesteps` that the class makes of them, and the `velocities` and
`samples` of a run: sample 0 is noise, and sample i + 1 is what the class makes of sample i and velocity i. The numbers of file i, case j are drawn with seed 1700 + 100·i + j.

The noise levels are float32 in diffusers, each rounded once here (Euler's class shifts levels that it is given in float32, where 1 - sigma loses digits). The goldens compute with these numbers in float64
from there on: UniPC's class itself takes logarithms of them in float32, and DPM-Solver++'s class rounds each sample to float32 as well, which is left out here. `lambda_min_clipped`, minus infinity, is null, as JSON has it.
"""

import argparse
import json
import pathlib

import diffusers
import numpy
import torch
from diffusers.schedulers import scheduling_dpmsolver_multistep, scheduling_flow_match_euler_discrete

FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "goldens" / "schedulers"
ELEMENTS = 4

EULER = diffusers.FlowMatchEulerDiscreteScheduler
UNIPC = diffusers.UniPCMultistepScheduler
DPM = diffusers.DPMSolverMultistepScheduler
WAN = dict(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000)
# As the published LTX-Video has it.
LTX = dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=0.1)
OWN = [(steps, None, False) for steps in (1, 2, 3, 4, 6, 10, 14, 15, 20, 50)]


class WideTorch:
    """torch with numbers of 64 bits where the class of DPM-Solver++ asks for 32."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


class Wide:
    """numpy with numbers of 64 bits where the class of Euler steps asks for 32."""

    float32 = numpy.float64

    def __getattr__(self, name):
        return getattr(numpy, name)


def of_tokens(tokens, config):
    """The mu that LTX-Video's pipeline computes."""
    slope = (config["max_shift"] - config["base_shift"]) / (config["max_image_seq_len"] - config["base_image_seq_len"])
    return slope * tokens + config["base_shift"] - slope * config["base_image_seq_len"]


def given(steps, tokens, config):
    return [(n, (t, of_tokens(t, config)), True) for n in steps for t in tokens]


# name: (class, arguments, cases: steps, tokens and mu, whether levels are passed)
FILES = {
    "euler_shift1": (EULER, dict(), OWN),
    "euler_shift3": (EULER, dict(shift=3.0), OWN + [(n, None, True) for n in (1, 2, 4, 7, 25, 50)]),
    "euler_shift12": (EULER, dict(shift=12.0), OWN),
    "euler_ltx": (EULER, LTX, given((2, 3, 8, 30, 50), (24, 1024, 4096, 9999), LTX)),
    "euler_linear": (EULER, LTX | dict(time_shift_type="linear", shift_terminal=None), given((1, 2, 9), (1500,), LTX)),
    "euler_terminal": (EULER, dict(shift=5.0, shift_terminal=0.02), [(n, None, True) for n in (2, 5, 20)]),
    "unipc_wan_480": (UNIPC, WAN | dict(flow_shift=3.0), OWN),
    "unipc_wan_720": (UNIPC, WAN | dict(flow_shift=5.0), OWN),
    "unipc_shift1": (UNIPC, WAN, OWN),
    "unipc_shift12": (UNIPC, WAN | dict(flow_shift=12.0), OWN),
    "unipc_order1": (UNIPC, WAN | dict(flow_shift=5.0, solver_order=1), OWN[:7]),
    "unipc_order3": (UNIPC, WAN | dict(flow_shift=5.0, solver_order=3), OWN[:7]),
    "unipc_uncorrected": (UNIPC, WAN | dict(flow_shift=5.0, disable_corrector=[0, 2]), OWN[:7]),
    "unipc_terminal": (UNIPC, WAN | dict(flow_shift=5.0, shift_terminal=0.05), OWN[1:7]),
    "dpm_solver": (DPM, WAN | dict(flow_shift=5.0), OWN),
    "dpm_solver_order1": (DPM, WAN | dict(flow_shift=3.0, solver_order=1), OWN[:7]),
    "dpm_solver_order3": (DPM, WAN | dict(flow_shift=3.0, solver_order=3), OWN),
    "dpm_solver_heun": (DPM, WAN | dict(flow_shift=8.0, solver_type="heun", lower_order_final=False), OWN),
}


def short(values, digits):
    return [float(f"{float(x):.{digits}g}") for x in values]


def run(scheduler, steps, mu, levels, rng, double):
    """Noise levels, timesteps, velocities and samples of a run."""
    arguments = dict(mu=mu) if mu is not None else {}
    scheduling_flow_match_euler_discrete.np = Wide() if double else numpy
    scheduling_dpmsolver_multistep.torch = torch
    if levels:
        arguments["sigmas"] = numpy.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(steps, **arguments)
    dtype = torch.float64 if double else torch.float32
    if double:
        scheduler.sigmas = scheduler.sigmas.double()
        scheduling_dpmsolver_multistep.torch = WideTorch()
    draw = lambda: numpy.round(rng.standard_normal(ELEMENTS), 6)
    samples, velocities = [torch.tensor(draw(), dtype=dtype).reshape(1, ELEMENTS, 1)], []
    for timestep in scheduler.timesteps:
        velocities.append(torch.tensor(draw(), dtype=dtype).reshape(1, ELEMENTS, 1))
        samples.append(scheduler.step(velocities[-1], timestep, samples[-1], return_dict=False)[0])
    return scheduler.sigmas, scheduler.timesteps, velocities, samples


def cases(number, kind, config, wanted, double):
    for j, (steps, dynamic, levels) in enumerate(wanted):
        tokens, mu = dynamic or (None, None)
        rng = numpy.random.default_rng(1700 + 100 * number + j)
        sigmas, timesteps, velocities, samples = run(kind(**config), steps, mu, levels, rng, double)
        yield dict(
            steps=steps, tokens=tokens, given=levels, sigmas=short(sigmas, 10), timesteps=short(timesteps, 10),
            velocities=[short(v.flatten(), 12) for v in velocities], samples=[short(x.flatten(), 12) for x in samples],
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for number, (name, (kind, config, wanted)) in enumerate(FILES.items()):
        made = list(cases(number, kind, config, wanted, True))
        for case in made:
            assert numpy.isfinite(case["samples"]).all(), (name, case["steps"])
        if args.report:
            worst = 0.0
            for ours, theirs in zip(made, cases(number, kind, config, wanted, False)):
                a, b = (numpy.array(case["samples"]) for case in (ours, theirs))
                worst = max(worst, float(numpy.abs(a - b).max() / numpy.abs(a).max()))
            print(f"{name}: float32 is {worst:.1e} away")
            continue
        written = kind(**config).to_json_string()
        config = {field: None if value == -numpy.inf else value for field, value in json.loads(written).items()}
        text = json.dumps(dict(config=config, cases=[None] * len(made)), sort_keys=True)
        rows = ",\n".join(json.dumps(case) for case in made)
        text = text.replace('"cases": [' + ", ".join(["null"] * len(made)) + "]", '"cases": [\n' + rows + "\n]")
        assert json.loads(text)["cases"] == made
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
