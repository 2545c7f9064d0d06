"""The client against a real server, and the notebooks' numbers against the interface's."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
import unittest
import unittest.mock
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import tdb
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent
SPEC = {
    "prompt": "<|endoftext|>When Mary and John went to the store, John gave a drink to",
    "targetTokens": [" Mary"],
    "distractorTokens": [" John"],
    "componentTypeForMlp": "neuron",
    "componentTypeForAttention": "attention_head",
    "topAndBottomKForNodeTable": 10,
    "hideEarlyLayersWhenAblating": True,
}


def printed(notebook: Any) -> list[str]:
    """What each cell of a notebook prints."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout") for cell in code]


NUMBER = re.compile(r"-?\d+\.\d+")


class Package(unittest.TestCase):
    server: tdb.Server

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = tdb.Server()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.close()

    def run_notebook(self, name: str) -> Any:
        """Runs a notebook, compares what it prints with what is stored in it, and gives what it leaves in `result`."""
        notebook = nbformat.read(FOLDER / "notebooks" / f"{name}.ipynb", as_version=4)
        stored = printed(notebook)
        notebook.cells.append(nbformat.v4.new_code_cell("import json; print(json.dumps(result))"))
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
        *found, result = printed(notebook)
        for old, new in zip(stored, found, strict=True):
            # Another processor may round the last digit differently.
            self.assertEqual(NUMBER.sub("#", old).split(), NUMBER.sub("#", new).split())
            for one, other in zip(NUMBER.findall(old), NUMBER.findall(new)):
                self.assertAlmostEqual(float(one), float(other), delta=0.002)
        return json.loads(result)

    def post(self, path: str, body: Any) -> Any:
        """The interface without the client."""
        data = json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.server.url + path, data=data)) as answer:
            return json.load(answer)

    def ask(self, **changes: Any) -> tuple[float, Any]:
        answer = self.post("/batched_tdb", {"subRequests": [{**SPEC, **changes}]})["inferenceSubResponses"][0]
        difference = answer["inferenceResponse"]["inferenceAndTokenData"]["loss"]
        return difference, answer["processingResponseDataByName"]["topKComponents"]

    def test_the_client_is_made_from_the_interface(self) -> None:
        made = subprocess.run(
            [sys.executable, FOLDER / "generate.py", self.server.url], check=True, capture_output=True, text=True
        )
        committed = (FOLDER / "src/tdb/client.py").read_text(encoding="utf-8")
        self.assertEqual(made.stdout, committed, "run generate.py: the interface has changed")

    def test_every_route_without_arguments_answers(self) -> None:
        self.assertIn("modelName", self.server.model_info())
        self.assertGreater(len(self.server.neuron_datasets_metadata()), 0)
        document = self.server.request("GET", "/openapi.json")
        for path, methods in document["paths"].items():
            if (operation := methods.get("get")) and not operation.get("parameters"):
                name = operation["operationId"].split("-", 1)[-1]
                with self.subTest(path):
                    if name == "dump_memory_snapshot":
                        self.assertRaises(tdb.Refused, self.server.dump_memory_snapshot)
                    else:
                        self.assertTrue(getattr(self.server, name)())

    def test_a_server_with_a_token_is_asked_with_it(self) -> None:
        with tdb.Server("--token", "a_token_+_that_has_32_characters") as server:
            self.assertIn("modelName", server.model_info())
            self.assertIn("tdb", server.metrics())

    def test_a_stream_comes_in_parts(self) -> None:
        parts = list(self.server.batched_tdb_stream({"subRequests": [SPEC]}))
        self.assertGreater(len(parts), 3)
        self.assertEqual(parts[-1]["event"], "done")

    def test_an_answer_that_breaks_off_is_an_error(self) -> None:
        class Breaks(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.path == "/elsewhere/batched_tdb":
                    self.send_response(302)
                    self.send_header("Location", "http://example.org/")
                    self.end_headers()
                    return
                # A part of a stream without an end, as of a server that was killed.
                self.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
                self.wfile.write(b'14\r\n{"event": "tokens"}\n\r\n')

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Breaks) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            # No proxy of the environment is asked for a server of this machine.
            with unittest.mock.patch.dict("os.environ", {"http_proxy": "http://127.0.0.1:9"}):
                client = tdb.Client(f"http://127.0.0.1:{server.server_port}", token="secret")
                elsewhere = tdb.Client(f"http://127.0.0.1:{server.server_port}/elsewhere", token="secret")
            parts = client.batched_tdb_stream({"subRequests": [SPEC]})
            self.assertEqual(next(parts)["event"], "tokens")
            with self.assertRaises(OSError):
                list(parts)
            with self.assertRaises(OSError):
                client.batched_tdb({"subRequests": [SPEC]})
            with self.assertRaisesRegex(tdb.Refused, "not followed"):
                elsewhere.batched_tdb({"subRequests": [SPEC]})
            server.shutdown()

    def test_a_refusal_has_the_servers_sentence(self) -> None:
        with self.assertRaises(tdb.Refused) as refused:
            self.server.batched_tdb({"subRequests": [{**SPEC, "targetTokens": ["no single token"]}]})
        self.assertEqual(refused.exception.status, 400)
        self.assertIn("token", refused.exception.message)
        with self.assertRaises(tdb.Refused) as refused:
            self.server.batched_tdb({})  # type: ignore[typeddict-item]
        self.assertEqual(refused.exception.status, 422)
        self.assertIn("subRequests", refused.exception.message)

    def test_a_server_that_does_not_start_says_why(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "no-such-model"):
            tdb.Server("--model", "no-such-model", "--offline")

    def test_why_this_token(self) -> None:
        result = self.run_notebook("why_this_token")
        difference, components = self.ask()
        effects = sorted(components["activationsByGroupId"]["act_times_grad"], key=lambda e: -abs(e))[:10]
        self.assertEqual(result, {"difference": difference, "effects": effects})

    def test_switch_it_off(self) -> None:
        result = self.run_notebook("switch_it_off")
        before, _ = self.ask()
        after, _ = self.ask(nodeAblations=[{"nodeIndex": result["head"], "value": 0.0}])
        self.assertEqual((result["before"], result["after"]), (before, after))
        self.assertLess(after, before)

    def test_what_a_latent_means(self) -> None:
        result = self.run_notebook("what_a_latent_means")
        node = {"dst": "mlp_autoencoder_latent", "layerIndex": result["layer"], "activationIndex": result["index"]}
        records = "embedded_sae-resid-delta-mlp"
        record = self.post("/neuron_record", {**node, "datasets": [records]})
        found = self.post("/existing_explanations", {**node, "explanationDatasets": [], "neuronDataset": records})
        self.assertEqual(result["largest"], record["maxActivation"])
        self.assertEqual(result["explanations"], [entry["explanation"] for entry in found])
        self.assertGreater(len(found), 0)


if __name__ == "__main__":
    unittest.main()
