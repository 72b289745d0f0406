"""A re-run never changes the user's files, and sees its own changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from valgap.experiments.overlay import Overlay

pytestmark = pytest.mark.takes(22)

SETUP = """
import os, sys, tempfile
from pathlib import Path
from valgap.experiments.sandbox import Sandbox
scratch = Path(sys.argv[1])
guarded = Sandbox(scratch, (Path(tempfile.gettempdir()),)).enter().files
"""


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with its content's digest, its mode and its time."""
    out = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        out[str(path.relative_to(folder))] = f"{content} {status.st_mode} {status.st_mtime_ns if path.is_file() else ''}"
    return out


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The user's folder, with files to harm."""
    home = tmp_path / "home"
    (home / "old" / "deep").mkdir(parents=True)
    (home / "log.csv").write_text("epoch,acc\n")
    (home / "best.txt").write_text("best")
    (home / "old" / "a.txt").write_text("a")
    (home / "old" / "deep" / "b.txt").write_text("b")
    (home / "to_best").symlink_to("best.txt")
    return home


def run(world: Path, code: str, setup: str = SETUP) -> str:
    scratch = world.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    short = tempfile.mkdtemp(prefix="v-")
    before = tree(world)
    done = subprocess.run(
        [sys.executable, "-c", setup + code, str(scratch)],
        cwd=world,
        env={**os.environ, "TMPDIR": short},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    shutil.rmtree(short)
    assert done.returncode == 0, done.stderr
    assert tree(world) == before
    return done.stdout


PROGRAMS = {
    "append": "f=open('log.csv','a'); f.write('1,2\\n'); f.close(); assert open('log.csv').read()=='epoch,acc\\n1,2\\n'",
    "overwrite": "Path('best.txt').write_text('new'); assert Path('best.txt').read_text()=='new'",
    "update": "f=open('best.txt','r+'); f.seek(0); f.write('B'); f.close(); assert open('best.txt').read()=='Best'",
    "exclusive": """
try: open('best.txt','x'); raise SystemExit('made it twice')
except FileExistsError: pass
open('fresh.txt','x').close(); assert os.path.exists('fresh.txt')""",
    "new_folder": """
os.makedirs('runs/exp/1'); open('runs/exp/1/w.bin','wb').write(b'1')
assert os.listdir('runs')==['exp'] and [str(p) for p in Path('runs').rglob('*.bin')]==['runs/exp/1/w.bin']
os.makedirs('runs/exp/1', exist_ok=True)
assert sorted(e.name for e in os.scandir('.'))==['best.txt','log.csv','old','runs','to_best']""",
    "remove_folder": """
import shutil; shutil.rmtree('old'); assert not os.path.exists('old') and not Path('old/a.txt').exists()
assert 'old' not in os.listdir('.'); os.makedirs('old'); assert os.listdir('old')==[] and not os.path.exists('old/a.txt')
Path('old/c.txt').write_text('c'); assert os.listdir('old')==['c.txt']""",
    "unlink": """
os.remove('best.txt'); assert not os.path.exists('best.txt')
try: open('best.txt'); raise SystemExit('still there')
except FileNotFoundError: pass
Path('best.txt').write_text('again'); assert Path('best.txt').read_text()=='again'""",
    "rename": """
os.rename('best.txt','worst.txt'); assert open('worst.txt').read()=='best' and not os.path.exists('best.txt')
os.replace('log.csv','worst.txt'); assert open('worst.txt').read()=='epoch,acc\\n'
os.rename('old','older'); assert open('older/deep/b.txt').read()=='b' and not os.path.exists('old')""",
    "temporary_then_replace": """
import tempfile; h,n=tempfile.mkstemp(dir='.'); os.write(h,b'x'); os.close(h); os.replace(n,'best.txt')
assert open('best.txt').read()=='x'""",
    "shutil": """
import shutil; shutil.copy('best.txt','copy.txt'); shutil.copytree('old','new'); shutil.move('log.csv','new/log.csv')
assert open('new/deep/b.txt').read()=='b' and open('new/log.csv').read().startswith('epoch') and not os.path.exists('log.csv')""",
    "pathlib": """
p=Path('old')/'a.txt'; p.rename('z.txt'); assert Path('z.txt').read_text()=='a'; Path('q').mkdir(); (Path('q')/'r').touch()
Path('z.txt').unlink(); assert not Path('z.txt').exists(); Path('best.txt').chmod(0o600)
os.utime('best.txt',(1,1)); os.symlink('best.txt','link'); assert open('link').read()=='best'""",
    "descriptors": """
h=os.open('best.txt',os.O_WRONLY|os.O_APPEND); os.write(h,b'!'); os.close(h); assert open('best.txt').read()=='best!'
h=os.open('n.txt',os.O_CREAT|os.O_WRONLY); os.close(h); assert os.stat('n.txt').st_size==0""",
    "absolute": "p=os.path.abspath('best.txt'); open(p,'w').write('n'); os.chdir('old'); assert open('../best.txt').read()=='n'",
    "missing_folder": """
try: open('no/such/file','w'); raise SystemExit('made')
except FileNotFoundError: pass""",
    "libraries": """
import numpy as np, torch, pandas as pd, json, pickle
np.save('a.npy', np.ones(3)); assert np.load('a.npy').sum()==3
np.savez('b.npz', x=np.ones(2)); assert np.load('b.npz')['x'].sum()==2
torch.save({'w':torch.ones(2)},'best.txt'); assert torch.load('best.txt',weights_only=True)['w'].sum()==2
torch.save({'w':torch.ones(2)},Path('old')/'m.pt'); torch.load(Path('old')/'m.pt',weights_only=True)
pd.DataFrame({'a':[1]}).to_csv('log.csv',mode='a',header=False); assert 'epoch' in open('log.csv').read()
from safetensors.torch import save_file, load_file
save_file({'w':torch.ones(2)},'s.safetensors'); assert load_file('s.safetensors')['w'].sum()==2
from PIL import Image; Image.new('RGB',(4,4)).save('i.png'); assert Image.open('i.png').size==(4,4)""",
    "links": """
os.mkdir('runs'); open('runs/w.bin','w').write('1')
os.symlink('runs','latest'); assert open('latest/w.bin').read()=='1' and os.path.isfile('latest/w.bin')
os.symlink(os.path.abspath('best.txt'),'last'); open('last','w').write('new')
assert open('best.txt').read()=='new' and os.path.islink('last') and os.readlink('last').endswith('best.txt')
os.unlink('last'); assert open('best.txt').read()=='new' and not os.path.lexists('last')
open('latest/v.bin','w').write('2'); assert sorted(os.listdir('latest'))==['v.bin','w.bin']==sorted(os.listdir('runs'))
os.link('best.txt','again'); assert open('again').read()=='new'
os.symlink('loop','loop')
try: open('loop'); raise SystemExit('opened')
except OSError: pass""",
    "kept_links": """
assert open('to_best').read()=='best'; open('best.txt','w').write('new'); assert open('to_best').read()=='new'
open('to_best','a').write('er'); assert open('best.txt').read()=='newer' and os.path.islink('to_best')
assert os.path.realpath('to_best')==os.path.abspath('best.txt')
os.chmod('to_best',0o600); assert os.stat('best.txt').st_mode & 0o777 == 0o600""",
    "folders_by_number": """
f=os.open('old',os.O_RDONLY); h=os.open('a.txt',os.O_WRONLY|os.O_TRUNC,dir_fd=f); os.write(h,b'A'); os.close(h)
assert open('old/a.txt').read()=='A' and os.stat('a.txt',dir_fd=f).st_size==1
os.mkdir('made',dir_fd=f); os.rename('a.txt','made/b.txt',src_dir_fd=f,dst_dir_fd=f); os.unlink('made/b.txt',dir_fd=f)
assert os.listdir('old/made')==[] and not os.path.exists('old/a.txt') and not os.path.exists('made')""",
    "access": """
for p in ('.','best.txt','old'): assert os.access(p,os.W_OK) and os.access(p,os.R_OK|os.W_OK)
assert not os.access('none',os.F_OK); os.remove('best.txt'); assert not os.access('best.txt',os.W_OK)""",
    "temporary_elsewhere": """
import tempfile; h,n=tempfile.mkstemp(); os.write(h,b'x'); os.close(h); os.replace(n,'best.txt')
assert open('best.txt').read()=='x'
d=tempfile.mkdtemp(); open(d+'/y','w').write('y'); os.rename(d,'moved')
assert open('moved/y').read()=='y' and not os.path.exists(d)""",
    "standard_streams": """
open('/dev/stderr','a').close(); open('/proc/self/fd/1','a').close(); open('/dev/null','w').write('x'); os.urandom(1)
open('/dev/urandom','rb').read(1); m,s=os.openpty(); os.write(s,b'a'); assert os.read(m,1)==b'a' and os.ttyname(s)""",
    "shared": """
import torch, torch.multiprocessing as mp
from multiprocessing.shared_memory import SharedMemory
one=SharedMemory(create=True,size=8); one.buf[0]=3; two=SharedMemory(one.name); assert two.buf[0]==3; two.close()
one.close(); one.unlink()
for how in ('file_system','file_descriptor'):
    mp.set_sharing_strategy(how); t=torch.zeros(2).share_memory_()
    p=mp.get_context('fork').Process(target=t.add_,args=(1,)); p.start(); p.join(); assert t.sum()==2 and p.exitcode==0
open('/dev/shm/cache-of-this','w').write('c'); assert open('/dev/shm/cache-of-this').read()=='c'
os.remove('/dev/shm/cache-of-this')""",
    "own_processes": """
import subprocess, signal, multiprocessing as mp, time, psutil
p=mp.get_context('fork').Process(target=time.sleep,args=(60,)); p.start(); p.terminate(); p.join(); assert p.exitcode==-15
p=mp.get_context('fork').Process(target=time.sleep,args=(60,)); p.start(); os.kill(p.pid,0); os.kill(p.pid,9); p.join()
c=subprocess.Popen(['sleep','60'],start_new_session=True); os.killpg(c.pid,15); assert c.wait()==-15
c=subprocess.Popen(['sleep','60']); psutil.Process(c.pid).nice(19); psutil.Process().cpu_affinity([0])
os.kill(c.pid,15); c.wait()
assert subprocess.run('sleep 60 & kill $!',shell=True).returncode==0
try: os.kill(2**22-1,0); raise SystemExit('there')
except ProcessLookupError: pass
import resource; resource.prlimit(os.getpid(),resource.RLIMIT_CORE,(0,0))
resource.setrlimit(resource.RLIMIT_NOFILE,resource.getrlimit(resource.RLIMIT_NOFILE))""",
    "own_sockets_whose_copies_lie_deep": """
import os, socket
# Of the program's folder: below the scratch folder its path would be too long for a socket.
n=os.path.abspath('of_workers'); u=socket.socket(socket.AF_UNIX); u.bind(n); u.listen()
for way in (n, u.getsockname()): socket.socket(socket.AF_UNIX).connect(way); u.accept()
""",
    "own_sockets": """
import socket, threading, tempfile
from multiprocessing.managers import BaseManager
s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); c=socket.create_connection(s.getsockname()); s.accept()
s=socket.socket(socket.AF_INET6); s.bind(('::1',0)); s.listen(); socket.create_connection(s.getsockname()[:2])
u=socket.socket(socket.AF_UNIX); n=tempfile.mktemp(); u.bind(n); u.listen(); socket.socket(socket.AF_UNIX).connect(n)
import torch, torch.distributed as dist
dist.init_process_group('gloo',init_method='tcp://127.0.0.1:29511',rank=0,world_size=1); t=torch.ones(1)
dist.all_reduce(t); dist.destroy_process_group()
dist.init_process_group('gloo',init_method='file://'+os.path.abspath('rendezvous'),rank=0,world_size=1)
dist.destroy_process_group()""",
    "ranks": """
import torch.multiprocessing as mp, torch, torch.distributed as dist
def work(rank):
    dist.init_process_group('gloo',init_method='tcp://localhost:29512',rank=rank,world_size=2)
    t=torch.ones(1)*rank; dist.all_reduce(t); assert t==1; dist.barrier(); dist.destroy_process_group()
mp.start_processes(work,nprocs=2,start_method='fork')""",
    "attributes": """
os.mkdir('made'); open('made/x','w').write('x')
if hasattr(os,'statvfs'): assert os.statvfs('made').f_namemax == os.statvfs('.').f_namemax
import shutil; shutil.copy2('best.txt','made/y'); shutil.copystat('log.csv','best.txt')
if hasattr(os,'chown'): os.chown('best.txt',os.getuid(),os.getgid()); os.chown('made/x',-1,-1)
if hasattr(os,'listxattr'): os.listxattr('made/x')
if hasattr(os,'mkfifo'): os.mkfifo('pipe'); assert os.path.exists('pipe')""",
    "mapped": """
try: import pyarrow
except ImportError: raise SystemExit
t=pyarrow.table({'a':[1,2]})
with open('t.arrow','wb') as f, pyarrow.ipc.new_stream(f,t.schema) as w: w.write_table(t)
with pyarrow.memory_map('t.arrow') as m: assert pyarrow.ipc.open_stream(m).read_all().num_rows==2""",
    "workers": """
from torch.utils.data import DataLoader
class D:
    def __len__(self): return 4
    def __getitem__(self,i): open('log.csv','a').write(f'{i}\\n'); return i
assert sum(int(b.sum()) for b in DataLoader(D(),2,num_workers=2))==6
assert len(open('log.csv').read().splitlines())==5""",
    "network": """
import socket
try: socket.create_connection(('192.0.2.1',80),timeout=2); raise SystemExit('connected')
except OSError as e: assert 'valgap' in str(e), e""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_users_files_stay(name: str, world: Path) -> None:
    run(world, PROGRAMS[name])


def test_the_programs_own_names_imported_before_are_guarded(world: Path) -> None:
    """What is not redirected (C code, children, functions taken earlier) is stopped by the kernel, or refused."""
    code = """
import subprocess
try: done = subprocess.run('rm -rf old; echo harm >> best.txt', shell=True, capture_output=True)
except PermissionError: assert not guarded
try: kept_open('best.txt','w').write('harm'); print('wrote')
except OSError: print('stopped')
print(guarded)
"""
    keep = "kept_open = open\n" + SETUP
    scratch = world.parent / "scratch"
    scratch.mkdir()
    before = tree(world)
    short = tempfile.mkdtemp(prefix="v-")
    done = subprocess.run(
        [sys.executable, "-c", keep + code, str(scratch)],
        cwd=world,
        env={**os.environ, "TMPDIR": short},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(short)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    if said[-1] == "True":
        assert said[0] == "stopped"
        assert tree(world) == before
    assert (world / "old" / "a.txt").read_text() == "a"


def test_a_path_leads_to_itself_until_something_is_written_on_its_way(tmp_path: Path) -> None:
    home, world = tmp_path / "home", tmp_path / "scratch" / "world"
    (home / "a" / "b").mkdir(parents=True)
    world.mkdir(parents=True)
    for name in ("a/b/c.txt", "d.txt"):
        (home / name).write_text("own")
    c, d = str(home / "a" / "b" / "c.txt"), str(home / "d.txt")
    ours, theirs = (Overlay(str(world), (str(tmp_path / "scratch"),)) for _ in range(2))
    assert (ours.read(c), ours.read(d), ours.names(home)) == (c, d, None)
    Path(theirs.write(d)).write_text("new")  # by another process of the program
    assert (ours.read(c), ours.read(d)) == (c, f"{world}{d}")
    theirs.forget(str(home / "a"))
    assert ours.read(c) == f"{world}{c}" and not ours.exists(c)
    assert sorted(ours.names(home) or []) == ["d.txt"]
