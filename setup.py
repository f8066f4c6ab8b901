"Package metadata: everything is read from settings.ini"
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=(here/'README.md').read_text('utf-8') if (here/'README.md').exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0', keywords=cfg['keywords'],
    packages=[*find_packages(include=[cfg['lib_path']]), f"{cfg['lib_path']}.nbs"], package_dir={f"{cfg['lib_path']}.nbs": cfg['nbs_path']}, # the notebooks are the jobs: they travel along
    package_data={f"{cfg['lib_path']}.nbs": ['*.ipynb', 'library/*.ipynb', 'library/*.toml', 'guides/*.ipynb', 'features/*', 'model/*', 'model/*/*', 'results/*', 'examples/*']}, python_requires=f">={cfg['min_python']}",
    install_requires=shlex.split(cfg['requirements']),
    extras_require={extra: shlex.split(cfg[f'{extra}_requirements']) for extra in ('intel', 'stock', 'baselines', 'dask', 'opensmile', 'parquet', 'demo', 'live', 'onnx', 'benchmark', 'dev')},
    entry_points={'console_scripts': ['ser-nb=ser_nb.command_line:main_entry'], 'nbdev': [f"{cfg['lib_name']}=ser_nb._modidx:d"]},
    classifiers=['Programming Language :: Python :: 3', 'Topic :: Multimedia :: Sound/Audio :: Speech'],
)
