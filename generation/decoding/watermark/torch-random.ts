/** 32-bit numbers of a Mersenne Twister, as `torch.Generator` on the CPU draws them after `manual_seed`. Source: Matsumoto and Nishimura 1998. */
const torchGenerator = (seed: bigint): (() => number) => {
  const [N, M] = [624, 397]
  const state = new Uint32Array(N)
  state[0] = Number(BigInt.asUintN(32, seed))
  for (let i = 1; i < N; i++) {
    const previous = state[i - 1]! ^ (state[i - 1]! >>> 30)
    state[i] = Math.imul(1812433253, previous) + i
  }
  let next = N
  const twist = () => {
    for (let i = 0; i < N; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % N]! & 0x7fffffff)
      state[i] = state[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
    }
    next = 0
  }
  return () => {
    if (next === N) twist()
    let y = state[next++]!
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    y ^= y >>> 18
    return y >>> 0
  }
}

/** The first `count` numbers of `torch.randperm(n)` with a generator of this seed, on the CPU. */
export const randomPermutation = (n: number, seed: bigint, count = n): Int32Array => {
  const random = torchGenerator(seed)
  const values = Int32Array.from({ length: n }, (_, i) => i)
  for (let i = 0; i < Math.min(count, n - 1); i++) {
    const j = i + (random() % (n - i))
    const swapped = values[i]!
    values[i] = values[j]!
    values[j] = swapped
  }
  return values.subarray(0, count)
}

/** `torch.randint(0, 2, (size,))` with a generator of this seed, on the CPU. */
export const randomBits = (size: number, seed: bigint): Uint8Array => {
  const random = torchGenerator(seed)
  return Uint8Array.from({ length: size }, () => random() % 2)
}
