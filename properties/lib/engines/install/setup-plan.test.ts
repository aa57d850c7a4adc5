import * as assert from 'node:assert/strict'
import * as fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { type Machine, nativePlatforms, planSetup, usablePlans } from '../../../../lib/engines/install/setup-plan.js'
import { cudaRequirements } from '../../../../lib/engines/install/unpack.js'

const machines: fc.Arbitrary<Machine> = fc.record({
  platform: fc.constantFrom(...nativePlatforms, 'linux-x64-musl', 'win32-x64', 'darwin-x64', 'freebsd-x64'),
  hasGpu: fc.boolean(),
  hasAvx: fc.boolean(),
  cuda: fc.constantFrom(undefined, '', '0', '1', 'yes')
})
const only = <A>(result: E.Either<unknown, A>): A => {
  assert.ok(E.isRight(result))
  return result.right
}
const x64: Machine = { platform: 'linux-x64', hasGpu: false, hasAvx: true }

describe('planSetup', () => {
  it('a machine with a GPU gets the CUDA build, unless INTERNVL_CUDA says otherwise', () => {
    const variant = (machine: Partial<Machine>): string => only(planSetup({ ...x64, ...machine })).variant
    assert.equal(variant({}), 'cpu')
    assert.equal(variant({ hasGpu: true }), 'cuda')
    assert.equal(variant({ hasGpu: true, cuda: '0' }), 'cpu')
    assert.equal(variant({ cuda: '1' }), 'cuda')
    assert.equal(variant({ platform: 'linux-arm64', hasGpu: true }), 'cpu')
  })

  it('every machine gets a plan that runs on it, or an error with the reason', () => {
    fc.assert(
      fc.property(machines, (machine) => {
        const plan = planSetup(machine)
        if (E.isLeft(plan)) return assert.match(plan.left[0].message, /no native engine|INTERNVL_CUDA=yes: expected 0 or 1/)
        const { variant, wheel, folder, platform } = plan.right
        assert.equal(platform, machine.platform)
        assert.ok(folder.includes(platform) && folder.includes(variant) && folder.includes(wheel.version))
        assert.match(wheel.sha256, /^[0-9a-f]{64}$/)
        assert.ok(variant === 'cpu' || (machine.cuda !== '0' && (machine.hasGpu || machine.cuda === '1')))
      })
    )
  })

  it('refuses machines on which the wheels do not run: another C library, a processor without AVX, CUDA where there is none', () => {
    const refused = (machine: Partial<Machine>): string => {
      const plan = planSetup({ ...x64, ...machine })
      return E.isLeft(plan) ? plan.left[0].message : 'planned'
    }
    assert.match(refused({ platform: 'linux-x64-musl' }), /linux-x64-musl/)
    assert.match(refused({ hasAvx: false }), /AVX/)
    assert.match(refused({ platform: 'darwin-arm64', cuda: '1' }), /no CUDA build for darwin-arm64/)
    assert.match(refused({ cuda: 'yes' }), /INTERNVL_CUDA=yes/)
  })

  it('the CPU build follows a CUDA build', () => {
    const variants = (machine: Partial<Machine>) => only(usablePlans({ ...x64, ...machine })).map(({ variant }) => variant)
    assert.deepEqual(variants({}), ['cpu'])
    assert.deepEqual(variants({ hasGpu: true }), ['cuda', 'cpu'])
    assert.deepEqual(variants({ cuda: '1' }), ['cuda', 'cpu'])
  })

  it('the NVIDIA wheels are those of the extra and-cuda, in every notation of the metadata', () => {
    const metadata = [
      'Requires-Dist: numpy <2.1.0,>=1.26.0',
      "Requires-Dist: nvidia-cublas-cu12 ==12.5.3.2 ; extra == 'and-cuda'",
      'Requires-Dist: nvidia-cudnn-cu12 (==9.3.0.75) ; extra == "and-cuda"',
      "Requires-Dist: nvidia-other ==1 ; extra == 'something'"
    ]
    assert.deepEqual(cudaRequirements(metadata.join('\n')), ['nvidia-cublas-cu12==12.5.3.2', 'nvidia-cudnn-cu12==9.3.0.75'])
  })
})
