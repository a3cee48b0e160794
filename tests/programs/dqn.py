"""Deep Q-learning: replay memory, target network with soft updates, epsilon-greedy play on a corridor."""

import random
from collections import deque, namedtuple

import torch
import torch.nn as nn
import torch.optim as optim

Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ReplayMemory:
    def __init__(self, capacity):
        self.memory = deque([], maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


class DQN(nn.Module):
    def __init__(self, n_observations, n_actions):
        super().__init__()
        self.layer1 = nn.Linear(n_observations, 32)
        self.layer2 = nn.Linear(32, n_actions)

    def forward(self, x):
        return self.layer2(torch.relu(self.layer1(x)))


LENGTH = 6


def observe(position):
    state = torch.zeros(1, LENGTH, device=device)
    state[0, position] = 1
    return state


def select_action(policy_net, state, epsilon):
    if random.random() > epsilon:
        with torch.no_grad():
            return policy_net(state).max(1).indices.view(1, 1)
    return torch.tensor([[random.randrange(2)]], device=device, dtype=torch.long)


def optimize_model(policy_net, target_net, optimizer, memory, batch_size=32, gamma=0.9):
    if len(memory) < batch_size:
        return None
    batch = Transition(*zip(*memory.sample(batch_size), strict=True))
    non_final_mask = torch.tensor([s is not None for s in batch.next_state], device=device, dtype=torch.bool)
    non_final_next_states = torch.cat([s for s in batch.next_state if s is not None])
    state_batch = torch.cat(batch.state)
    action_batch = torch.cat(batch.action)
    reward_batch = torch.cat(batch.reward)

    state_action_values = policy_net(state_batch).gather(1, action_batch)
    next_state_values = torch.zeros(batch_size, device=device)
    with torch.no_grad():
        next_state_values[non_final_mask] = target_net(non_final_next_states).max(1).values
    expected = (next_state_values * gamma) + reward_batch
    loss = nn.SmoothL1Loss()(state_action_values, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()
    return loss.item()


def main(seed=0):
    random.seed(seed)
    torch.manual_seed(seed)
    policy_net = DQN(LENGTH, 2).to(device)
    target_net = DQN(LENGTH, 2).to(device)
    target_net.load_state_dict(policy_net.state_dict())
    optimizer = optim.AdamW(policy_net.parameters(), lr=5e-3, amsgrad=True)
    memory = ReplayMemory(500)
    tau, episodes = 0.05, 40
    for episode in range(episodes):
        position, state = 2, observe(2)
        for _ in range(15):
            action = select_action(policy_net, state, epsilon=max(0.1, 1 - episode / 25))
            position += 1 if action.item() == 1 else -1
            done = position in (0, LENGTH - 1)
            reward = torch.tensor([float(position == LENGTH - 1)], device=device)
            next_state = None if done else observe(position)
            memory.push(state, action, next_state, reward)
            state = next_state
            optimize_model(policy_net, target_net, optimizer, memory)
            target_state, policy_state = target_net.state_dict(), policy_net.state_dict()
            for key in policy_state:
                target_state[key] = policy_state[key] * tau + target_state[key] * (1 - tau)
            target_net.load_state_dict(target_state)
            if done:
                break
    with torch.no_grad():
        q = policy_net(torch.eye(LENGTH, device=device))[1:-1].cpu()
    greedy = q.argmax(dim=1)
    print(q)
    assert greedy[1:].sum().item() == 3, q
    assert q[3, 1].sub(1.0).abs().item() < 0.3, q
    return {"right_moves": float(greedy.sum().item()), "q_before_goal": q[3, 1].item()}


if __name__ == "__main__":
    print(main())
