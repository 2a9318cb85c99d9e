package ai.nasedge.example

/**
 * What the model says of a recording: real values, the batch left out.
 *
 * @param samples of one channel, 16 bits, as `AudioRecord` reads them at the model's sample rate
 */
fun EdgeModel.run(samples: ShortArray): FloatArray =
    run(ModelFacts.preprocessing().apply(FloatArray(samples.size) { samples[it] / 32768f }))
