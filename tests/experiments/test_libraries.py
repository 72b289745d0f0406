"""What libraries write in C, C++ or Rust lands in the re-run's world too, and is read there again."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.experiments.test_sandbox import run

pytestmark = pytest.mark.takes(30)

HDF = """
import h5py, numpy as np
with h5py.File('data.h5','r') as f: assert f['x'][0]==1 and f.filename=='data.h5'
with h5py.File('data.h5','r+') as f: f['x'][0]=7
with h5py.File('data.h5') as f: assert f['x'][0]==7
with h5py.File('data.h5','a') as f: f['y']=np.ones(3)
with h5py.File('data.h5','r') as f: assert sorted(f)==['x','y'] and f['x'][0]==7
try: h5py.File('data.h5','x'); raise SystemExit('made twice')
except FileExistsError: pass
with h5py.File('data.h5','w') as f: f['z']=1
with h5py.File(Path('old')/'new.h5','w') as f: f['x']=2
with h5py.File('old/new.h5','a') as f: assert f['x'][()]==2
assert h5py.is_hdf5('old/new.h5') and os.path.exists('old/new.h5') and not h5py.is_hdf5('best.txt')
try: h5py.File('none.h5','r+'); raise SystemExit('opened')
except FileNotFoundError: pass
import io; b=io.BytesIO()
with h5py.File(b,'w') as f: f['x']=1
os.remove('data.h5')
try: h5py.File('data.h5','r'); raise SystemExit('still there')
except FileNotFoundError: pass"""
SQLITE = """
import sqlite3
with sqlite3.connect('base.db') as b:
    assert b.execute('select x from t').fetchall()==[(1,)]; b.execute('insert into t values (2)')
b.close(); assert sqlite3.connect('base.db').execute('select count(*) from t').fetchone()==(2,)
assert sqlite3.connect('file:base.db?mode=ro',uri=True).execute('select count(*) from t').fetchone()==(2,)
b=sqlite3.connect(Path('old')/'new.db'); b.execute('pragma journal_mode=wal'); b.execute('create table u (x)'); b.commit()
assert sqlite3.dbapi2.connect('old/new.db').execute('select count(*) from u').fetchone()==(0,)
b=sqlite3.connect('file:old/other.db?mode=rwc',uri=True); b.execute('create table u (x)'); b.commit()
assert os.path.exists('old/other.db')
sqlite3.connect(':memory:').execute('create table u (x)'); sqlite3.connect('').execute('create table u (x)')
t=sqlite3.connect('copy.db'); sqlite3.connect('base.db').backup(t); assert t.execute('select count(*) from t').fetchone()==(2,)
try: sqlite3.connect('none/x.db'); raise SystemExit('made')
except sqlite3.OperationalError: pass"""
TORCH = """
import torch, warnings; warnings.simplefilter('ignore')
m=torch.jit.trace(torch.nn.Linear(1,1),torch.ones(1,1)); want=m(torch.ones(1,1))
torch.jit.save(m,'best.txt'); assert torch.jit.load('best.txt')(torch.ones(1,1))==want
m.save('old/m.pt'); assert torch.jit.load(Path('old')/'m.pt')(torch.ones(1,1))==want
torch.save({'w':torch.ones(2)},'w.pt'); assert torch.load('w.pt',mmap=True)['w'].sum()==2
with open('open.pt','wb') as f: torch.jit.save(m,f)
torch.jit.load('open.pt')
t=torch.from_file('best.txt',shared=True,size=4,dtype=torch.uint8); t.zero_(); assert open('best.txt','rb').read(4)==bytes(4)
from torch.profiler import profile, ProfilerActivity
with profile(activities=[ProfilerActivity.CPU]) as p: torch.ones(2)+1
p.export_chrome_trace('trace.json'); assert 'traceEvents' in open('trace.json').read()"""
PICTURES = """
import numpy as np, cv2, torch, torchvision
from PIL import Image
assert cv2.imread('i.png').shape==(4,6,3)
assert cv2.imwrite('i.png',np.zeros((8,8,3),np.uint8)) and cv2.imread('i.png').shape==(8,8,3)
assert Image.open('i.png').size==(8,8)
assert cv2.imwrite('old/n.jpg',np.zeros((5,5,3),np.uint8)) and os.path.exists('old/n.jpg')
assert not cv2.imwrite('none/n.jpg',np.zeros((5,5,3),np.uint8)) and cv2.imread('none.png') is None
f=np.full((64,64,3),9,np.uint8); v=cv2.VideoWriter('v.avi',cv2.VideoWriter_fourcc(*'MJPG'),5,(64,64))
assert v.isOpened(); [v.write(f) for _ in range(3)]; v.release(); ok,frame=cv2.VideoCapture('v.avi').read()
assert ok and frame.shape==(64,64,3)
torchvision.utils.save_image(torch.zeros(3,7,7),'s.png'); assert torchvision.io.read_image('s.png').shape==(3,7,7)
torchvision.io.write_png(torch.zeros(3,9,9,dtype=torch.uint8),'best.txt')
assert torchvision.io.read_file('best.txt')[1]==ord('P')
torchvision.io.write_jpeg(torch.zeros(3,9,9,dtype=torch.uint8),'j.jpg')
assert torchvision.io.decode_image(torchvision.io.read_file('j.jpg')).shape==(3,9,9)
Image.new('RGB',(3,3)).save('i.tif'); Image.new('RGB',(3,3)).save('i.webp'); assert Image.open('i.tif').size==(3,3)"""
ARRAYS = """
import numpy as np
m=np.memmap('best.txt',np.uint8,'r+'); m[0]=ord('B'); m.flush(); assert open('best.txt').read()=='Best'
m=np.memmap('new.dat',np.float32,'w+',shape=(3,)); m[:]=2; m.flush(); assert np.memmap('new.dat',np.float32,'r').sum()==6
np.save('a.npy',np.arange(4)); x=np.load('a.npy',mmap_mode='r+'); x[0]=5; x.flush(); assert np.load('a.npy')[0]==5
np.lib.format.open_memmap('o.npy','w+',np.int8,(2,))[:]=1; assert np.load('o.npy').sum()==2
np.arange(3,dtype=np.int8).tofile('t.bin'); assert np.fromfile('t.bin',np.int8).tolist()==[0,1,2]
np.savetxt('log.csv',np.ones(2)); assert np.loadtxt('log.csv').sum()==2
import mmap
with open('best.txt','r+b') as f, mmap.mmap(f.fileno(),0) as m: m[0:1]=b'w'
assert open('best.txt').read()=='west'"""
TABLES = """
import pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pyarrow.feather as fe, pyarrow.csv as pc
t=pa.table({'a':[1,2]})
pq.write_table(t,'t.parquet'); assert pq.read_table('t.parquet').num_rows==2 and pq.ParquetFile('t.parquet').metadata.num_rows==2
pd.DataFrame({'a':[1]}).to_parquet('p.parquet'); assert len(pd.read_parquet('p.parquet'))==1
fe.write_feather(t,'t.feather'); assert fe.read_table('t.feather').num_rows==2
pc.write_csv(t,'log.csv'); assert pc.read_csv('log.csv').num_rows==2
with pa.OSFile('o.arrow','wb') as f, pa.ipc.new_stream(f,t.schema) as w: w.write_table(t)
with pa.memory_map('o.arrow') as f: assert pa.ipc.open_stream(f).read_all().num_rows==2
with pa.output_stream('best.txt') as f: f.write(b'new')
with pa.input_stream('best.txt') as f: assert f.read()==b'new'
from safetensors import safe_open; from safetensors.numpy import save_file; import numpy as np
save_file({'x':np.ones(2)},'n.safetensors')
with safe_open('n.safetensors','np') as f: assert f.get_tensor('x').sum()==2"""
ONNX = """
import torch, onnx, onnxruntime, numpy as np
from onnx import helper as h, TensorProto as T
g=h.make_graph([h.make_node('Relu',['x'],['y'])],'g',[h.make_tensor_value_info('x',T.FLOAT,[1])],[h.make_tensor_value_info('y',T.FLOAT,[1])])
onnx.save(h.make_model(g,opset_imports=[h.make_opsetid('',13)],ir_version=8),'best.txt')
s=onnxruntime.InferenceSession('best.txt',providers=['CPUExecutionProvider'])
assert s.run(None,{'x':np.ones(1,np.float32)})[0]==1"""
PROGRAMS = {"sqlite": SQLITE, "torch": TORCH, "pictures": PICTURES, "arrays": ARRAYS, "tables": TABLES, "onnx": ONNX}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The user's folder, with what libraries read and change."""
    home = tmp_path / "home"
    (home / "old").mkdir(parents=True)
    for name in ("best", "log"):
        (home / ("best.txt" if name == "best" else "log.csv")).write_text(name)
    base = sqlite3.connect(home / "base.db")
    base.execute("create table t (x)")
    base.execute("insert into t values (1)")
    base.commit()
    base.close()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(home / "i.png")
    return home


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_library_writes_stays_inside(name: str, world: Path) -> None:
    run(world, PROGRAMS[name])


def test_hdf_stays_inside(world: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(world / "data.h5", "w") as file:
        file["x"] = [1, 2]
    run(world, HDF)


@pytest.mark.skipif(sys.platform != "linux", reason="the program tells its memory by /proc")
def test_a_large_database_is_read_where_it_lies(world: Path) -> None:
    code = """
from valgap.experiments import databases; databases.LARGEST_COPY = 100
import sqlite3; b=sqlite3.connect('base.db'); assert b.execute('select x from t').fetchall()==[(1,)]
try: b.execute('insert into t values (2)'); raise SystemExit('written')
except sqlite3.OperationalError: pass
assert not os.path.exists(os.path.join(scratch,'world'+os.path.abspath('base.db')))"""
    run(world, code)
