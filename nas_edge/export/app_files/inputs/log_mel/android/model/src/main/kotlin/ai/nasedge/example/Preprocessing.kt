package ai.nasedge.example

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.log10
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sin

/** From samples to a network's input: a log-mel spectrogram, normalised. */
class Preprocessing(
    private val size: Int,
    private val clipSamples: Int,
    private val windowSamples: Int,
    private val fftSamples: Int,
    private val sampleRate: Double,
    private val lowHz: Double,
    private val highHz: Double,
    private val floorDb: Double,
    private val mean: Float,
    private val std: Float
) {
    private val window = DoubleArray(windowSamples) { 0.5 - 0.5 * cos(2 * PI * it / windowSamples) }
    private val corners = DoubleArray(size + 2) { hz(mel(lowHz) + it * (mel(highHz) - mel(lowHz)) / (size + 1)) }

    /**
     * @param samples of one channel, -1 to 1, at the model's sample rate
     * @return values by frame, `size * size`
     */
    fun apply(samples: FloatArray): FloatArray {
        val clip = clipped(samples)
        val floor = 10.0.pow(floorDb / 10)
        val values = FloatArray(size * size)
        for (frame in 0 until size) {
            val start = (frame.toLong() * (clipSamples - windowSamples) / (size - 1)).toInt()
            val power = power(clip, start)
            for (band in 0 until size) {
                val decibels = 10 * log10(max(weighed(power, band), floor))
                values[frame * size + band] = ((decibels - mean) / std).toFloat()
            }
        }
        return values
    }

    /** The middle of a recording; a shorter one is padded with silence equally on both sides. */
    private fun clipped(samples: FloatArray): FloatArray {
        val clip = FloatArray(clipSamples)
        val more = samples.size - clipSamples
        for (i in clip.indices) {
            val from = if (more >= 0) more / 2 + i else i - -more / 2
            if (from >= 0 && from < samples.size) clip[i] = samples[from]
        }
        return clip
    }

    /** Power at each frequency of a frame. */
    private fun power(clip: FloatArray, start: Int): DoubleArray {
        val real = DoubleArray(fftSamples)
        val imaginary = DoubleArray(fftSamples)
        for (i in 0 until windowSamples) real[i] = clip[start + i] * window[i]
        transform(real, imaginary)
        val scale = window.sum() * window.sum()
        return DoubleArray(fftSamples / 2 + 1) { (real[it] * real[it] + imaginary[it] * imaginary[it]) / scale }
    }

    /** The power in a mel band: a triangle over the frequencies. */
    private fun weighed(power: DoubleArray, band: Int): Double {
        val low = corners[band]
        val middle = corners[band + 1]
        val high = corners[band + 2]
        var sum = 0.0
        for (i in power.indices) {
            val hz = i * sampleRate / fftSamples
            val weight = min((hz - low) / (middle - low), (high - hz) / (high - middle))
            if (weight > 0) sum += weight * power[i]
        }
        return sum
    }

    private fun mel(hz: Double): Double = 2595 * log10(1 + hz / 700)

    private fun hz(mel: Double): Double = 700 * (10.0.pow(mel / 2595) - 1)

    /** The Fourier transform, in place; the length is a power of two (Cooley and Tukey). */
    private fun transform(real: DoubleArray, imaginary: DoubleArray) {
        val n = real.size
        var reversed = 0
        for (i in 1 until n) {
            var bit = n shr 1
            while (reversed and bit != 0) {
                reversed = reversed xor bit
                bit = bit shr 1
            }
            reversed = reversed xor bit
            if (i < reversed) {
                real[i] = real[reversed].also { real[reversed] = real[i] }
                imaginary[i] = imaginary[reversed].also { imaginary[reversed] = imaginary[i] }
            }
        }
        var half = 1
        while (half < n) {
            for (k in 0 until half) {
                val angle = -PI * k / half
                val c = cos(angle)
                val s = sin(angle)
                for (i in k until n step 2 * half) {
                    val j = i + half
                    val re = c * real[j] - s * imaginary[j]
                    val im = c * imaginary[j] + s * real[j]
                    real[j] = real[i] - re
                    imaginary[j] = imaginary[i] - im
                    real[i] += re
                    imaginary[i] += im
                }
            }
            half *= 2
        }
    }
}
