"""As little of a training as valgap records: what `valgap run` costs at its start and end, whatever the program."""

import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader, val = (DataLoader(TensorDataset(torch.randn(8, 4), torch.arange(8) % 2), batch_size=4) for _ in range(2))
for x, y in loader:
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
model.eval()
with torch.no_grad():
    print(sum((model(x).argmax(1) == y).sum().item() for x, y in val) / 8, torchvision.__version__)
