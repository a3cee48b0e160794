"""Proximal policy optimisation: Normal policies of continuous actions, Categorical ones, KL, entropy bonus, clipping."""

import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Bernoulli, Categorical, Independent, MultivariateNormal, Normal, kl_divergence


class RolloutBuffer:
    def __init__(self):
        self.actions, self.states, self.logprobs, self.rewards = [], [], [], []

    def clear(self):
        del self.actions[:], self.states[:], self.logprobs[:], self.rewards[:]


class ActorCritic(nn.Module):
    def __init__(self, state_dim, action_dim, action_std_init):
        super(ActorCritic, self).__init__()
        self.action_dim = action_dim
        self.action_var = torch.full((action_dim,), action_std_init * action_std_init)
        self.actor = nn.Sequential(nn.Linear(state_dim, 16), nn.Tanh(), nn.Linear(16, action_dim))
        self.critic = nn.Sequential(nn.Linear(state_dim, 16), nn.Tanh(), nn.Linear(16, 1))

    def act(self, state):
        action_mean = self.actor(state)
        cov_mat = torch.diag(self.action_var).unsqueeze(dim=0)
        dist = MultivariateNormal(action_mean, cov_mat)
        action = dist.sample()
        return action.detach(), dist.log_prob(action).detach()

    def evaluate(self, state, action):
        action_mean = self.actor(state)
        action_var = self.action_var.expand_as(action_mean)
        dist = MultivariateNormal(action_mean, torch.diag_embed(action_var))
        return dist.log_prob(action), self.critic(state), dist.entropy()


class PPO:
    def __init__(self, state_dim, action_dim, lr=3e-2, K_epochs=8, eps_clip=0.2):
        self.eps_clip, self.K_epochs = eps_clip, K_epochs
        self.buffer = RolloutBuffer()
        self.policy = ActorCritic(state_dim, action_dim, 0.4)
        self.optimizer = torch.optim.Adam(
            [
                {"params": self.policy.actor.parameters(), "lr": lr},
                {"params": self.policy.critic.parameters(), "lr": lr * 2},
            ]
        )
        self.policy_old = ActorCritic(state_dim, action_dim, 0.4)
        self.policy_old.load_state_dict(self.policy.state_dict())
        self.MseLoss = nn.MSELoss()

    def select_action(self, state):
        with torch.no_grad():
            state = torch.FloatTensor(state).unsqueeze(0)
            action, action_logprob = self.policy_old.act(state)
        self.buffer.states.append(state)
        self.buffer.actions.append(action)
        self.buffer.logprobs.append(action_logprob)
        return action.detach().cpu().numpy().flatten()

    def update(self):
        rewards = torch.tensor(self.buffer.rewards, dtype=torch.float32)
        rewards = (rewards - rewards.mean()) / (rewards.std() + 1e-7)
        old_states = torch.squeeze(torch.stack(self.buffer.states, dim=0)).detach()
        old_actions = torch.squeeze(torch.stack(self.buffer.actions, dim=0), 1).detach()
        old_logprobs = torch.squeeze(torch.stack(self.buffer.logprobs, dim=0)).detach()
        for _ in range(self.K_epochs):
            logprobs, state_values, dist_entropy = self.policy.evaluate(old_states, old_actions)
            state_values = torch.squeeze(state_values)
            ratios = torch.exp(logprobs - old_logprobs.detach())
            advantages = rewards - state_values.detach()
            surr1 = ratios * advantages
            surr2 = torch.clamp(ratios, 1 - self.eps_clip, 1 + self.eps_clip) * advantages
            loss = -torch.min(surr1, surr2) + 0.5 * self.MseLoss(state_values, rewards) - 0.01 * dist_entropy
            self.optimizer.zero_grad()
            loss.mean().backward()
            self.optimizer.step()
        self.policy_old.load_state_dict(self.policy.state_dict())
        self.buffer.clear()


def reach_the_target():
    """One step: the action should be twice the state."""
    rng = np.random.default_rng(0)
    agent = PPO(2, 2)
    means = []
    for _ in range(25):
        total = 0.0
        for _ in range(64):
            state = rng.uniform(-1, 1, 2)
            action = agent.select_action(state)
            reward = -float(((action - 2 * state) ** 2).sum())
            agent.buffer.rewards.append(reward)
            total += reward
        agent.update()
        means.append(total / 64)
    return means


def bandit():
    """REINFORCE with a categorical policy: the third arm pays most."""
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    pay = torch.tensor([0.1, 0.3, 0.9, 0.5])
    for _ in range(60):
        m = Categorical(logits=logits)
        action = m.sample((32,))
        reward = pay[action]
        loss = -(m.log_prob(action) * (reward - reward.mean())).mean() - 0.001 * m.entropy()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Categorical(logits=logits.detach()).probs


def formulas():
    n = Normal(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    standard = Normal(torch.zeros(2), torch.ones(2))
    pair = Independent(n, 1)
    b = Bernoulli(logits=torch.tensor([0.0, 1.0]))
    mu = torch.zeros(2, requires_grad=True)
    Normal(mu, 1.0).rsample((5,)).sum().backward()
    assert mu.grad.tolist() == [5.0, 5.0]
    return {
        "exact_kl": kl_divergence(n, standard).sum().item(),
        "exact_pair": pair.log_prob(torch.tensor([0.5, 0.5])).item(),
        "exact_bernoulli": (b.log_prob(torch.tensor([1.0, 0.0])).sum() + b.entropy().sum()).item(),
        "exact_cdf": n.cdf(torch.tensor(0.3)).sum().item(),
        "exact_repr": str(n)[:12] + str(Normal(0.0, 1.0)),
    }


def main():
    torch.manual_seed(0)
    means = reach_the_target()
    probs = bandit()
    print(means[0], means[-1], probs)
    assert means[-1] > means[0] / 2 and means[-1] > -1.0
    assert probs.argmax() == 2
    return {"reward": means[-1], "best": probs[2].item(), **formulas()}


if __name__ == "__main__":
    print(main())
