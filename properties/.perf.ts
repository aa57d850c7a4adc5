const root = process.argv[2]!
const [{ selectEngine }, { affine }, { attend }, { rmsNorm }, q, { tf }] = await Promise.all(['lib/engines/index.ts', 'lib/nn/linear.ts', 'lib/nn/attention.ts', 'lib/nn/norm.ts', 'lib/quantization/formats.ts', 'lib/tf.ts'].map((p) => import(`${root}/${p}`).catch(() => import(`${root}/lib/packed.ts`)))) as any[]
await selectEngine({ engine: 'native' })
const pack = q.pack ?? q.quantize ?? q.quantizeWeight
const r = (...s: number[]) => tf.randomNormal(s, 0, 1, 'float32', 1)
const w = r(1024, 1024), w4 = pack ? pack('int4', w) : undefined
const small = r(16, 16), x1 = r(1, 1024), x256 = r(256, 1024), xs = r(1, 16), wn = rmsNorm(1024, 1e-6).apply({ weight: r(1024) })
const [q1, k, v] = [r(1, 8, 1, 64), r(1, 2, 512, 64), r(1, 2, 512, 64)], [qm, km] = [r(1, 8, 256, 64), r(1, 8, 256, 64)]
const cases: Record<string, [() => any, number]> = {
  'gemv f32 1x1024x1024': [() => affine(x1, w), 200],
  ...(w4 ? { 'gemv int4': [() => affine(x1, w4), 200], 'gemm int4 256': [() => affine(x256, w4), 10] } : {}),
  'gemm f32 256': [() => affine(x256, w), 10],
  'call overhead: affine 1x16x16': [() => affine(xs, small), 500],
  'call overhead: rmsNorm 1x1024': [() => wn(x1), 500],
  'attention 1 query 512 keys': [() => attend(q1, k, v, 0.1), 200],
  'attention 256 queries': [() => attend(qm, km, km, 0.1), 10]
} as any
const out: Record<string, number> = {}
for (const [name, [f, n]] of Object.entries(cases)) {
  let best = Infinity
  for (let rep = 0; rep < 25; rep++) {
    const t = process.hrtime.bigint()
    for (let i = 0; i < n; i++) tf.dispose(f())
    best = Math.min(best, Number(process.hrtime.bigint() - t) / n / 1000)
  }
  out[name] = Math.round(best * 10) / 10
}
console.log(JSON.stringify(out))
