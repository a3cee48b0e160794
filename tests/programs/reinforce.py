"""Policy gradient: REINFORCE and a critic on a small corridor, with log_softmax, gather and discounted returns."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class Corridor:
    """Start in the middle, reach the right end for +1, the left end for −1; every step costs 0.02."""

    def __init__(self, length=7):
        self.length = length

    def reset(self):
        self.position, self.steps = self.length // 2, 0
        return self.observe()

    def observe(self):
        state = np.zeros(self.length, dtype=np.float32)
        state[self.position] = 1.0
        return state

    def step(self, action):
        self.position += 1 if action == 1 else -1
        self.steps += 1
        if self.position == self.length - 1:
            return self.observe(), 1.0, True
        if self.position == 0:
            return self.observe(), -1.0, True
        return self.observe(), -0.02, self.steps >= 20


class Policy(nn.Module):
    def __init__(self, states, actions):
        super().__init__()
        self.affine1 = nn.Linear(states, 32)
        self.action_head = nn.Linear(32, actions)
        self.value_head = nn.Linear(32, 1)
        self.saved_actions = []
        self.rewards = []

    def forward(self, x):
        x = F.relu(self.affine1(x))
        return F.log_softmax(self.action_head(x), dim=-1), self.value_head(x)


def select_action(policy, state):
    state = torch.from_numpy(state).float().unsqueeze(0)
    log_probs, value = policy(state)
    action = torch.multinomial(log_probs.detach().exp(), 1)
    policy.saved_actions.append((log_probs.gather(1, action).squeeze(), value.squeeze(), log_probs))
    return action.item()


def finish_episode(policy, optimizer, gamma=0.95):
    R = 0
    returns = []
    for r in policy.rewards[::-1]:
        R = r + gamma * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    if len(returns) > 1:
        returns = (returns - returns.mean()) / (returns.std() + np.finfo(np.float32).eps.item()) * 0.1 + returns
    policy_losses, value_losses, entropies = [], [], []
    for (log_prob, value, log_probs), R in zip(policy.saved_actions, returns, strict=True):
        advantage = R - value.item()
        policy_losses.append(-log_prob * advantage)
        value_losses.append(F.smooth_l1_loss(value, R))
        entropies.append(-(log_probs.exp() * log_probs).sum())
    optimizer.zero_grad()
    loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum() - 0.01 * torch.stack(entropies).mean()
    loss.backward()
    optimizer.step()
    policy.rewards.clear()
    del policy.saved_actions[:]


def main(seed=0):
    torch.manual_seed(seed)
    env = Corridor()
    policy = Policy(env.length, 2)
    optimizer = optim.Adam(policy.parameters(), lr=1e-2)
    history = []
    for _ in range(150):
        state, total, done = env.reset(), 0.0, False
        while not done:
            action = select_action(policy, state)
            state, reward, done = env.step(action)
            policy.rewards.append(reward)
            total += reward
        history.append(total)
        finish_episode(policy, optimizer)
    start, end = float(np.mean(history[:20])), float(np.mean(history[-20:]))
    with torch.no_grad():
        log_probs, _ = policy(torch.eye(env.length))
        right = log_probs.exp()[1:-1, 1]
    assert end > 0.6, (start, end)
    assert right.mean() > 0.7
    return {"start": start, "end": end, "right": right.mean().item()}


if __name__ == "__main__":
    print(main())
