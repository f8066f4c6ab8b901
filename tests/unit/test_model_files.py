"An untrusted run folder: whatever is in it, reading it ends with a model or with one line that names the file"
import json
import os
import shutil
from importlib import import_module

import h5py
import numpy as np
import pytest
from helpers import command, write_noise

from ser_nb.files import fingerprint, read_json, write_json
from ser_nb.model_files import MAX_BYTES, OPENVINO_FILES, load_model, load_openvino, read_model_json
from ser_nb.prediction import EmotionModel
from ser_nb.run_folder import notebooks_dir
from ser_nb.speech_encoder import import_openvino

pytestmark = pytest.mark.unit
ov = import_openvino()
op = import_module('openvino.opset13')
SHIPPED = notebooks_dir()/"model"/"functionals"
N_FEATURES, N_LABELS = 480, 16


@pytest.fixture
def run(tmp_path):
    "A copy of the package's model"
    shutil.copytree(SHIPPED, tmp_path/'run')
    return tmp_path/'run'


def forge(run, **change):
    "Renew the hashes in model.json as a forger would"
    about = read_json(run/'model.json')
    hashes = dict(sha256=fingerprint(run/'model.h5'), openvino={n: fingerprint(run/n) for n in OPENVINO_FILES})
    write_json(about | hashes | change, run/'model.json')


def refused(read, run, fault):
    "It is refused, in one line that names the run and the fault"
    with pytest.raises((ValueError, OSError)) as caught: read(run)
    text = str(caught.value)
    assert fault in text and str(run) in text and '\n' not in text and len(text) < 1500, text


# files

@pytest.mark.parametrize('name', list(MAX_BYTES))
@pytest.mark.parametrize('kind', ['/dev/zero', 'link', 'fifo', 'folder', 'sparse', 'missing'])
def test_only_regular_files_of_a_sensible_size_are_read(run, name, kind, tmp_path):
    shutil.move(run/name, tmp_path/name)
    if kind == '/dev/zero': (run/name).symlink_to('/dev/zero')
    if kind == 'link': (run/name).symlink_to(tmp_path/name)
    if kind == 'fifo': os.mkfifo(run/name)
    if kind == 'folder': (run/name).mkdir()
    if kind == 'sparse':
        (run/name).touch()
        os.truncate(run/name, 10 ** 12)
    refused(read_model_json, run, name)


def test_names_in_model_json_are_never_paths(run):
    about = read_json(run/'model.json')
    forge(run, openvino=about['openvino'] | {'/dev/zero': '0'})
    refused(read_model_json, run, 'openvino names')
    forge(run, openvino={'/dev/zero': '0', '../model.bin': '0'})
    refused(read_model_json, run, 'openvino')


def test_a_feature_that_no_sound_has_is_refused_when_the_model_loads(run):
    features = read_json(run/'model.json')['features']
    forge(run, features=[*features[:-1], '\x00'])
    refused(EmotionModel, run, r"model.json: the model takes '\x00', which cannot be computed from sound")


def test_a_model_that_gives_no_probabilities_for_a_sound_is_one_line_of_the_command(run, tmp_path, monkeypatch):
    from ser_nb import model_files, prediction
    def damaged(*_): return model_files._runner(lambda rows: [rows[0][:, :N_LABELS] * np.nan], N_LABELS, 'model.xml')
    monkeypatch.setattr(prediction, 'load_openvino', damaged)
    code, out, said = command('predict', write_noise(tmp_path/'a.wav'), '--run', run)
    assert (code, out) == (1, ''), said
    assert said.splitlines()[-1].startswith('Error: model.xml: its outputs are no probabilities'), said


# model.json

@pytest.mark.parametrize(
    'text, fault',
    [
        ('{"format": ' + '1' * 5000 + '}', 'a number of 5000 digits'),
        ('{"a":' * 100_000, 'not valid JSON'), ('{"format": 6, "format": 6}', 'stands twice'),
        ('{"temperature": NaN}', 'no finite number'), ('{"temperature": 1e999}', 'no finite number'),
        ('{"a": "\\ud800"}', 'not valid JSON'), ('[1]', 'not a JSON object')])
def test_json_that_other_readers_choke_on_is_refused(run, text, fault):
    (run/'model.json').write_text(text)
    refused(read_model_json, run, fault)


@pytest.mark.parametrize('change, fault', [
    (dict(labels=['a'] * 16), 'labels'), (dict(labels=[['a']]), 'labels'), (dict(features=[]), 'features'),
    (dict(emotions=['happy']), 'emotions'), (dict(temperature=0), 'temperature'), (dict(format='6'), 'format'),
    (dict(settings=dict(epochs=1, members=10 ** 9)), 'settings'), (dict(n_components=10 ** 9), 'n_components')])
def test_values_out_of_range_are_named(run, change, fault):
    forge(run, **change)
    refused(read_model_json, run, fault)


# the OpenVINO model

def parameter(n=N_FEATURES, kind=np.float32): return op.parameter([-1, n], kind, name='features')


def first(x, n=N_LABELS): return op.slice(x, np.array([0]), np.array([n]), np.array([1]), np.array([1]))


def proba(x): return op.softmax(first(x), 1)


def looped(x):
    "A graph with a loop of 10 ** 9 rounds"
    loop, inner = op.loop(op.constant(np.int64(10 ** 9)), op.constant(True)), parameter()
    body = ov.Model([op.relu(inner), op.constant(True)], [inner])
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(inner, x.output(0), body.results[0].output(0))
    return proba(loop.get_iter_value(body.results[0].output(0), -1))


def too_much(x): # 400 GB
    big = op.broadcast(op.reduce_sum(x, np.array([0, 1])), op.constant(np.array([100_000, 1_000_000])))
    return op.add(proba(x), op.reduce_sum(big, np.array([0, 1])))


GRAPHS = {
    'a loop': (lambda x: [looped(x)], 'refused'), 'too much memory': (lambda x: [too_much(x)], 'model.xml'),
    'fewer labels': (lambda x: [op.softmax(first(x, 8), 1)], 'its output is'),
    'three dimensions': (lambda x: [op.unsqueeze(proba(x), np.array(2))], 'its output is'),
    'a number': (lambda x: [op.reduce_sum(proba(x), np.array([0, 1]))], 'its output is'),
    'one row': (lambda x: [op.reduce_mean(proba(x), np.array([0]), True)], 'output is'),
    'whole numbers': (lambda x: [op.convert(proba(x), 'i64')], 'its output is'),
    'two outputs': (lambda x: [proba(x), x], '2 outputs'),
    'NaN': (lambda x: [op.log(op.subtract(proba(x), op.constant(np.float32(2))))], 'no probabilities'),
    'infinity': (lambda x: [op.divide(proba(x), op.constant(np.float32(0)))], 'no probabilities'),
    'scores': (lambda x: [op.multiply(proba(x), op.constant(np.float32(100)))], 'no probabilities')}


def write_graph(run, results, parameters):
    "Put a network in the place of a run's"
    ov.save_model(ov.Model(results, parameters), run/'model.xml', compress_to_fp16=False)
    forge(run)


@pytest.mark.parametrize('kind', GRAPHS)
def test_a_graph_of_another_kind_is_refused_in_one_line(run, kind):
    graph, fault = GRAPHS[kind]
    x = parameter()
    write_graph(run, graph(x), [x])
    refused(load_openvino, run, fault)


@pytest.mark.parametrize('inputs, fault', [
    ([parameter, parameter], '2 inputs'), ([lambda: parameter(180)], 'its input is'),
    ([lambda: parameter(kind=np.int32)], 'its input is')])
def test_a_graph_with_other_inputs_is_refused(run, inputs, fault):
    xs = [make() for make in inputs]
    x = op.convert(xs[0], 'f32')
    write_graph(run, [op.softmax(first(op.add(x, xs[1]) if len(xs) > 1 else x), 1)], xs)
    refused(load_openvino, run, fault)


def test_a_graph_that_fails_only_with_some_rows_ends_the_prediction_in_one_line(run):
    x = parameter()
    write_graph(run, [op.multiply(proba(x), op.exp(op.reduce_max(x, np.array([1]), True)))], [x])
    predict = load_openvino(run)
    assert predict(np.zeros((2, N_FEATURES))).shape == (2, N_LABELS)
    with pytest.raises(ValueError, match='no probabilities'): predict(np.full((2, N_FEATURES), 1e3))


@pytest.mark.parametrize('text, fault', [
    (b'<!DOCTYPE a [<!ENTITY b "c">]><net/>', 'entities'), (b'', 'OpenVINO'), (b'<net' * 10_000, 'OpenVINO')])
def test_xml_that_grows_or_is_none_is_refused(run, text, fault):
    (run/'model.xml').write_bytes(text)
    forge(run)
    refused(load_openvino, run, fault)


def test_a_good_untrusted_model_answers(run):
    x = parameter()
    write_graph(run, [proba(x)], [x])
    np.testing.assert_allclose(load_openvino(run)(np.zeros((3, N_FEATURES))), 1 / N_LABELS, atol=1e-6)


# the Keras file

def virtual(f, name):
    layout = h5py.VirtualLayout((16,), 'f4')
    layout[:] = h5py.VirtualSource('/etc/passwd', 'x', (16,))
    f.create_virtual_dataset(name, layout)


def nested(f, name):
    f[name] = f['/']


FILES = {
    'external storage': (lambda f, n: f.create_dataset(n, (16,), 'u1', external=[('/etc/passwd', 0, 16)]),
                         'another file'),
    'an external link': (lambda f, n: f.__setitem__(n, h5py.ExternalLink('/etc/passwd', '/x')), 'it is a link'),
    'a soft link': (lambda f, n: f.__setitem__(n, h5py.SoftLink('/x')), 'it is a link'),
    'a virtual data set': (virtual, 'another file'), 'a circle': (nested, 'deep'),
    'a bomb': (lambda f, n: f.create_dataset(n, (10 ** 10,), 'f4', compression="gzip"), "MB of numbers"),
    'text': (lambda f, n: f.create_dataset(n, data=[b'x'], dtype=h5py.string_dtype()), 'not plain numbers')}


@pytest.mark.parametrize('kind', FILES)
def test_an_h5_file_that_reaches_out_or_explodes_is_refused(run, kind):
    make, fault = FILES[kind]
    with h5py.File(run/'model.h5', 'a') as f: make(f['model_weights'], 'x')
    forge(run)
    refused(load_model, run, fault)


def test_code_behind_json_escapes_is_refused(run):
    with h5py.File(run/'model.h5', 'a') as f:
        config = json.loads(f.attrs['model_config'])
        config['config']['layers'].append(dict(class_name='Lambda', config={}))
        f.attrs['model_config'] = json.dumps(config).replace('Lambda', '\\u004cambda')
    forge(run)
    refused(load_model, run, 'it holds code (Lambda)')


def test_weights_that_are_no_numbers_are_refused(run):
    with h5py.File(run/'model.h5', 'a') as f:
        name = f['model_weights/kernel'].attrs['weight_names'][0]
        f[f'model_weights/kernel/{name.decode() if isinstance(name, bytes) else name}'][0] = np.nan
    forge(run)
    refused(load_model, run, 'not finite')
